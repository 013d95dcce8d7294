# Copyright (c) the monai_armed authors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Configs that run commands, unpickle or fetch when MONAI runs them, and that name only packages that are trusted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from monai_armed.check_bundle import check_bundle

pytest.importorskip("picklescan", reason="check-bundle scans weights with picklescan")

PYTHON = "open('pwned', 'w')"
LOADER = {"_target_": "LoadImage", "_mode_": "callable"}
PART = "among the parts that bundles may use"
CLASS = "must be one of MONAI's classes by its bare name"
ATTRIBUTE = "is none that expressions may use"
FETCHED = "pretrained weights would be fetched"

EVIL: dict[str, tuple[dict[str, Any], str]] = {
    "MONAI's command": ({"run": {"_target_": "monai.utils.run_cmd", "cmd_list": ["touch", "pwned"]}}, PART),
    "by its module": ({"run": {"_target_": "monai.utils.misc.run_cmd", "cmd_list": ["touch", "pwned"]}}, PART),
    "by its bare name": ({"run": {"_target_": "run_cmd", "cmd_list": ["touch", "pwned"]}}, PART),
    "PyTorch's command": ({"run": "$torch.utils.collect_env.run('touch pwned')"}, PART),
    "NumPy's": ({"code": PYTHON, "run": "$np.testing.runstring(@code, {})"}, PART),
    "NumPy's measure": ({"run": {"_target_": "numpy.testing.measure", "code_str": PYTHON}}, PART),
    "a timer": ({"code": PYTHON, "run": "$torch.utils.benchmark.Timer(@code).timeit(1)"}, PART),
    "a file of Python": ({"run": {"_target_": "numpy.testing.rundocs", "filename": "docs/x.md"}}, PART),
    "a compiled module": (
        {"run": {"_target_": "numpy.testing.extbuild.build_and_import_extension", "modname": "m", "functions": []}},
        PART,
    ),
    "a launcher": ({"run": {"_target_": "torch.distributed.launch.main", "args": ["docs/x.md"]}}, PART),
    "a launcher of processes": ({"run": {"_target_": "ignite.distributed.Parallel", "backend": "gloo"}}, PART),
    "an algorithm's pickle": ({"run": {"_target_": "monai.auto3dseg.algo_from_pickle", "pkl_filename": "x"}}, PART),
    "an algorithm's JSON": ({"run": {"_target_": "monai.auto3dseg.algo_from_json", "filename": "x"}}, PART),
    "a graph of code": (
        {
            "run": {
                "_target_": "torch.fx.graph_module.reduce_graph_module",
                "body": {"_code": "def forward(self): pass"},
                "import_block": PYTHON,
            }
        },
        PART,
    ),
    "our own command": ({"run": {"_target_": "monai_armed.audit.command.run_audit", "arguments": 1}}, PART),
    "a network of any kind": ({"run": {"_target_": "monai_armed.audit.networks.open_network", "path": "x.pt2"}}, PART),
    "a dump of a model": ({"run": {"_target_": "torch.utils.model_dump.main", "argv": ["x"]}}, PART),
    "an array's pickle": (
        {"run": {"_target_": "numpy.lib.format.read_array", "fp": "x", "allow_pickle": True}},
        "'allow_pickle' must be False",
    ),
    "a pickle in an array's file": (
        {"run": {"_target_": "NumpyReader", "allow_pickle": True}},
        "'allow_pickle' must be False, written out",
    ),
    "the same in an override": ({"run#allow_pickle": True}, "'allow_pickle' must be False"),
    "the same in an expression": ({"run": "$monai.data.NumpyReader(None, None, 1 == 1)"}, "'allow_pickle' must be"),
    "a cache of pickles": ({"run": {"_target_": "PersistentDataset", "data": [], "cache_dir": "x"}}, PART),
    "TorchScript": ({"run": "$torch.jit.load('models/x.ts')"}, PART),
    "a library": ({"run": "$torch.ops.load_library('models/x.md')"}, PART),
    "a library of classes": ({"run": "$torch.classes.load_library('models/x.md')"}, PART),
    "ctypes": ({"run": "$np.ctypeslib.load_library('x', 'models')"}, PART),
    "text as numbers, fetched": ({"host": "//example.org/x", "run": "$np.genfromtxt('http:' + @host)"}, PART),
    "a table, fetched": ({"run": {"_target_": "CSVIterableDataset", "src": "$'http%c' % 58 + 2 * '/' + 'x'"}}, PART),
    "an address in two parts": (
        {"a": "memory:", "b": "//x", "run": {"_target_": "TensorBoardStatsHandler", "log_dir": "$@a + @b"}},
        "address of the network",
    ),
    "an address in two other parts": (
        {"b": "/x", "run": {"_target_": "TensorBoardStatsHandler", "log_dir": "$'memory:/' + @b"}},
        "address of the network",
    ),
    "text by a pattern": ({"run": "$np.fromregex('/etc/passwd', 'r', [])"}, PART),
    "a file that is overwritten": ({"run": "$np.save('x.npy', 1)"}, PART),
    # parts that are allowed, put to another use
    "a reader that is a command": (
        {"run": {"_target_": "LoadImage", "reader": "os.mkdir", "path": "pwned"}},
        CLASS,
    ),
    "a reader by reference": (
        {"run": {"_target_": "LoadImage", "reader": "@y", "path": "pwned"}, "y": "os.mkdir"},
        CLASS,
    ),
    "a reader in a list": ({"run": {"_target_": "LoadImage", "reader": ["os.mkdir"], "path": "pwned"}}, CLASS),
    "a reader in an override": ({"run#reader#0": "os.mkdir"}, CLASS),
    "a reader that is a builtin": ({"run": {"_target_": "LoadImage", "reader": "breakpoint"}}, CLASS),
    "a reader that has others": (
        {
            "run": {
                "_target_": "LoadImage",
                "reader": {"_target_": "DataLoader", "dataset": ["os.mkdir"], "batch_size": None, "num_workers": 0},
                "path": "pwned",
            }
        },
        CLASS,
    ),
    "a reader in an expression": ({"run": "$monai.transforms.LoadImage('os.mkdir', path='pwned')"}, CLASS),
    "a reader that is given late": ({"p": LOADER, "run": "$@p('os.mkdir', path='pwned')"}, "with named arguments"),
    "a loader that is imported": (
        {"packages": ["$from monai.transforms import LoadImage"], "run": "$@packages#0('os.mkdir', path='pwned')"},
        "with named arguments",
    ),
    "a loader that is handed on": (
        {"run": {"_target_": "Lambda", "func": "$monai.transforms.LoadImage"}},
        "with named arguments",
    ),
    "arguments of a reader by their place": (
        {"run": "$monai.transforms.LoadImage(None, True, None, False, False, None, '.', True, None, None, True)"},
        "with named arguments",
    ),
    "a writer": ({"run": {"_target_": "SaveImage", "writer": "os.mkdir"}}, CLASS),
    "a merger": ({"run": {"_target_": "PatchInferer", "splitter": None, "merger_cls": "evil.Merger"}}, CLASS),
    "a compiler's path": (
        {"run": {"_target_": "SupervisedEvaluator", "compile": True, "compile_kwargs": {"options": {"cpp.cxx": "x"}}}},
        "'compile_kwargs' must be None",
    ),
    "a process group elsewhere": (
        {"host": "tcp:", "run": "$torch.distributed.init_process_group('gloo', @host + '//example.org:1')"},
        "'init_method' must be None",
    ),
    "a module that was imported": (
        {"packages": ["$import torch"], "run": "$@packages#0.utils.collect_env.run('touch pwned')"},
        f"the attribute 'utils' {ATTRIBUTE}",
    ),
    "modules of a list": (
        {"packages": ["$import torch"], "run": "$getattr(@packages[0], 'hub').load('a/b')"},
        "getattr may ask",
    ),
    "a table that evaluates text": ({"t": {}, "run": "$@t.eval(@code)", "code": "@torch.os"}, "the attribute 'eval'"),
    "the same handed on": ({"t": {}, "run": {"_target_": "Lambda", "func": "$@t.eval"}}, "the attribute 'eval'"),
    "a chain of getattr": (
        {"y": {"_target_": "torch.nn.ReLU"}, "run": "$getattr(getattr(@y, 'forward'), 'func_globals')"},
        "getattr may ask",
    ),
    "a constructor that is called again": ({"run": "$@y.__init__(1)", "y": 1}, "the attribute '__init__'"),
    "a method of a class": ({"run": {"_target_": "monai.transforms.Compose.flatten"}}, "not a part of a module"),
    "a class's other constructor": (
        {"run": {"_target_": "monai.networks.nets.transchex.BertPreTrainedModel.from_pretrained"}},
        PART,
    ),
    "a format by %": ({"run": "$('%s' % @y).format_map(@y)", "y": 1}, "the attribute 'format_map'"),
    "a partial": ({"run": {"_target_": "functools.partial", "func": "$torch.hub.load"}}, "package 'functools'"),
    "a reduction": ({"imports": ["$from functools import reduce"]}, "package 'functools'"),
    "a method by its name": ({"run": {"_target_": "operator.methodcaller", "name": "x"}}, PART),
    "a borrowed function": (
        {"run": {"_target_": "monai.transforms.io.array.locate", "path": "os"}},
        "really 'pydoc.loc",
    ),
    "a lazy import": ({"run": {"_target_": "monai.transforms.io.array.optional_import", "module": "os"}}, PART),
    "a table of classes": ({"run": "$monai.transforms.io.array.SUPPORTED_READERS['x']"}, "neither a class nor"),
    "a target that is a component": (
        {"run": {"_target_": {"_target_": "Lambda", "func": "@x"}}, "x": 1},
        "a target must be written out",
    ),
    "a mode that is computed": ({"run": {"_target_": "torch.nn.ReLU", "_mode_": "$'de' + 'bug'"}}, "the mode"),
    "what is disabled only here": (
        {"run": {"_target_": "run_cmd", "cmd_list": ["touch", "pwned"], "_disabled_": "@off"}, "off": True},
        PART,
    ),
    "what is required": (
        {"run": {"_target_": "torch.nn.ReLU", "_requires_": [{"_target_": "run_cmd", "cmd_list": ["touch", "pwned"]}]}},
        PART,
    ),
    "a description": ({"run": {"_target_": "torch.nn.ReLU", "_desc_": "$exit()"}}, "the name 'exit'"),
    "metadata in a config": ({"_meta_": {"x": {"_target_": "run_cmd", "cmd_list": ["touch", "pwned"]}}}, PART),
    "two files in one macro": ({"run": "%configs/train.json,/tmp/x.json::x"}, "none of the bundle's configs"),
    "a macro that leaves the bundle": ({"run": "%../configs/train.json::x"}, "none of the bundle's configs"),
    "a macro of two lines": ({"run": "%train.json\n/tmp/train.json::x"}, "none of the bundle's configs"),
    "an address of pieces": ({"run": "$'htt' + 'ps:' + '/' + '/example.org'"}, "make an address of the network"),
    # fetches without a word about it
    "weights by default": ({"run": {"_target_": "EfficientNetBN", "model_name": "efficientnet-b0"}}, FETCHED),
    "features": ({"run": {"_target_": "EfficientNetBNFeatures", "model_name": "efficientnet-b0"}}, FETCHED),
    "an expression": ({"run": "$monai.networks.nets.EfficientNetBN('efficientnet-b0')"}, FETCHED),
    "an override's target": ({"run#_target_": "EfficientNetBN"}, FETCHED),
    "weights by reference": ({"run": {"_target_": "DenseNet121", "pretrained": "@y"}, "y": True}, FETCHED),
    "weights of a path": ({"run": {"_target_": "HoVerNet", "pretrained_url": "example.org/x"}}, FETCHED),
    "a loss": ({"run": {"_target_": "PerceptualLoss", "spatial_dims": 2, "pretrained": False}}, PART),
    "torchvision": ({"run": {"_target_": "TorchVisionFCModel", "model_name": "resnet18"}}, PART),
    "MedicalNet": (
        {"run": {"_target_": "monai.networks.nets.resnet.get_pretrained_resnet_medicalnet", "resnet_depth": 10}},
        PART,
    ),
    "Inception": ({"run": {"_target_": "ignite.metrics.FID"}}, PART),
    "a tracking server": ({"run": {"_target_": "MLFlowHandler", "tracking_uri": "host:5000"}}, PART),
}


@pytest.mark.parametrize("evil", EVIL)
def test_it_is_refused_by_name(bundle, evil):
    config, said = EVIL[evil]
    (bundle / "configs" / "other.json").write_text(json.dumps(config), encoding="utf-8")
    found = check_bundle(bundle)
    assert any(fault.startswith("configs/other.json: ") and said in fault for fault in found), found
    assert not (bundle / "pwned").exists()


@pytest.mark.parametrize(
    "file", ("configs/evil.JSON", "docs/train.json", "configs/sub/docs/x.json", "configs/x.YML", "models/x.YAML")
)
def test_every_config_of_the_tree_is_read(bundle, file):
    path = bundle / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"run": "$__import__('os').system('touch pwned')"}), encoding="utf-8")
    (bundle / "configs" / "other.json").write_text(json.dumps({"x": f"%{file}::run"}), encoding="utf-8")
    assert any(fault.startswith(f"{file}: run: the name '__import__'") for fault in check_bundle(bundle))


def test_every_logging_conf_is_read(bundle):
    text = "[handler_x]\nclass=StreamHandler\nargs=(__import__('os').system('id'),)\n"
    (bundle / "configs" / "LOG.CONF").write_text(text, encoding="utf-8")
    assert any(fault.startswith("configs/LOG.CONF: ") and "are evaluated" in fault for fault in check_bundle(bundle))


def test_a_macro_of_a_file_that_was_not_looked_into_is_refused(bundle):
    (bundle / "output").mkdir()
    (bundle / "output" / "x.json").write_text(json.dumps({"x": "$exit()"}), encoding="utf-8")
    for macro, faults in (("output/x.json", 1), ("configs/train.json", 0), ("train.json", 0), ("sub/train.json", 1)):
        (bundle / "configs" / "other.json").write_text(json.dumps({"y": f"%{macro}::size"}), encoding="utf-8")
        assert len(check_bundle(bundle, ignored=["output"])) == faults, macro


@pytest.mark.parametrize(
    "text",
    (
        "a: &a [1,1,1,1,1,1,1,1,1]\n"
        + "\n".join(f"{c}: &{c} [{','.join([f'*{b}'] * 9)}]" for b, c in zip("abcdefgh", "bcdefghi", strict=True)),
        "a: &a [*a]",
        "[" * 5000,
    ),
    ids=("many", "endless", "deep"),
)
def test_yaml_that_stands_for_too_much_is_refused(bundle, text):
    (bundle / "configs" / "x.yaml").write_text(text, encoding="utf-8")
    assert any(fault.startswith("configs/x.yaml: it cannot be read") for fault in check_bundle(bundle))


def test_parts_and_attributes_may_be_allowed(bundle):
    config = {"x": {"_target_": "PerceptualLoss", "spatial_dims": 2, "pretrained": False}, "y": "$@x.spatial_dims"}
    (bundle / "configs" / "other.json").write_text(json.dumps(config), encoding="utf-8")
    assert len(check_bundle(bundle)) == 2
    assert check_bundle(bundle, ["monai.losses.perceptual", ".spatial_dims"]) == []


def test_what_bundles_are_made_of_passes(bundle):
    config = {
        "imports": ["$import torch.nn as nn", "$from monai.handlers import from_engine"],
        "network": {"_target_": "EfficientNetBN", "model_name": "efficientnet-b0", "pretrained": False},
        "loss": {"_target_": "monai.losses.DiceCELoss", "softmax": True},
        "optimizer": {"_target_": "torch.optim.SGD", "params": "$@network.parameters()", "lr": 0.1},
        "loader": {"_target_": "LoadImaged", "keys": "image", "reader": ["NibabelReader", "ITKReader"]},
        "saver": {"_target_": "SaveImaged", "keys": "pred", "writer": "NibabelWriter"},
        "metric": {"_target_": "ignite.metrics.Accuracy", "output_transform": "$from_engine(['pred', 'label'])"},
        "initialize": ["$monai.utils.set_determinism(seed=1)", "$torch.distributed.init_process_group(backend='nccl')"],
        "dtype": "$torch.float32",
        "pi": "$np.pi",
        "key": "$monai.utils.CommonKeys.IMAGE",
        "layer": "$nn.Linear(2, 3)",
        "run": ["$@network.eval()"],
    }
    (bundle / "configs" / "train_2.json").write_text(json.dumps(config), encoding="utf-8")
    assert check_bundle(bundle) == []
