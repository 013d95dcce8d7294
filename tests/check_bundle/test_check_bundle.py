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
"""Our bundles pass; each planted evil is refused, and said by name; nothing of a bundle is run by the check."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_armed.__main__ import main
from monai_armed.check_bundle import check_bundle
from monai_armed.check_bundle.files import LEFT_BY_RUNS

pytest.importorskip("picklescan", reason="check-bundle scans weights with picklescan")

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("bundle", sorted(ROOT.glob("bundles/*")), ids=lambda folder: folder.name)
def test_our_bundles_pass(bundle):
    assert check_bundle(bundle, ignored=LEFT_BY_RUNS) == []


def write_sums(folder: Path) -> None:
    digest = hashlib.sha256((folder / "models" / "model.pt").read_bytes()).hexdigest()
    (folder / "models" / "SHA256SUMS").write_text(f"{digest}  model.pt\n", encoding="utf-8")


EVIL_CONFIGS: dict[str, tuple[Any, str]] = {
    "a command": ({"x": {"_target_": "os.system", "command": "id"}}, "package 'os'"),
    "a process": ({"x": {"_target_": "subprocess.Popen", "args": ["id"]}}, "package 'subprocess'"),
    "a builtin": ({"x": {"_target_": "eval", "source": "1"}}, "'eval' is no class or function of MONAI"),
    "a builtin by its module": ({"x": {"_target_": "builtins.exec"}}, "package 'builtins'"),
    "a module inside a trusted one": ({"x": {"_target_": "torch.os.system"}}, "leads out of the package, to os"),
    "a function that a trusted module borrowed": (
        {"x": {"_target_": "torch.serialization.closing"}},
        "really 'contextlib.closing'",
    ),
    "another one": ({"x": {"_target_": "torch.nn.modules.container.islice"}}, "really 'itertools.islice'"),
    "a target by reference": ({"y": "os.system", "x": {"_target_": "@y"}}, "must be written out"),
    "a target by expression": ({"x": {"_target_": "$torch.hub.load"}}, "must be written out"),
    "a target by macro": ({"y": "os.system", "x": {"_target_": "%y"}}, "must be written out"),
    "a target in an override": ({"train#x#_target_": "shutil.rmtree"}, "package 'shutil'"),
    "a target with blanks": ({"x": {"_target_": " os..system"}}, "no plain dotted name"),
    "a private target": ({"x": {"_target_": "torch._C._jit_clear_class_registry"}}, "no plain dotted name"),
    "code from the hub": ({"x": {"_target_": "torch.hub.load", "repo_or_dir": "a/b"}}, "'torch.hub.load' is not"),
    "a pickle": ({"x": "$torch.load(@path, weights_only=False)"}, "'torch.load', which"),
    "a compiler": ({"x": {"_target_": "torch.utils.cpp_extension.load"}}, "cpp_extension.load'"),
    "another bundle": ({"x": {"_target_": "monai.bundle.run", "config_file": "x.json"}}, "'monai.bundle.run', which"),
    "another bundle by its bare name": ({"x": {"_target_": "ConfigWorkflow"}}, "monai.bundle"),
    "a download": ({"x": {"_target_": "monai.apps.download_url"}}, "monai.apps.utils"),
    "a data set that is fetched": ({"x": {"_target_": "sklearn.datasets.fetch_openml"}}, "sklearn.datasets"),
    "an import": ({"imports": ["$import os"]}, "package 'os'"),
    "an import of a borrowed module": ({"imports": ["$from torch import os"]}, "leads out of the package, to os"),
    "an import under a good name": ({"imports": ["$import torch.hub as np"]}, "gives 'np' another meaning"),
    "an import that hides another": ({"imports": ["$import torch; import os"]}, "more than one plain import"),
    "an import in an expression": ({"x": "$__import__('os').system('id')"}, "the name '__import__'"),
    "a lambda": ({"x": "$(lambda: 1)()"}, "Lambda is not among"),
    "a comprehension": ({"x": "$[x for x in @y]"}, "ListComp is not among"),
    "an assignment": ({"x": "$(y := 1)"}, "NamedExpr is not among"),
    "a formatted text": ({"x": "$f'{1}'"}, "JoinedStr is not among"),
    "a format": ({"x": "$'{0.a}'.format(@y)"}, "the attribute 'format'"),
    "classes of a number": ({"x": "$(1).__class__.__mro__"}, "the attribute '__class__'"),
    "globals of a method": ({"x": "$@y.forward.__globals__"}, "the attribute '__globals__'"),
    "getattr of what is private": ({"x": "$getattr(@y, '__class__')"}, "getattr may ask"),
    "getattr of what is computed": ({"x": "$getattr(@y, '_' + '_class_' + '_')"}, "getattr may ask"),
    "getattr as a value": ({"g": "$getattr", "x": "$@g(@y, 'a')"}, "the name 'getattr'"),
    "a module as a value": ({"t": "$torch", "x": "$@t.os.system('id')"}, "'torch' is"),
    "a module in a list": ({"x": "$[torch.utils][0].data"}, "'torch.utils' is a module"),
    "a builtin in an expression": ({"x": "$exec('1')"}, "the name 'exec'"),
    "a file that is opened": ({"x": "$open('/etc/passwd').read()"}, "the name 'open'"),
    "a reference that breaks out of its quotes": ({"x": "$'@a, 1)'"}, "cannot be parsed"),
    "a long power": ({"x": "$9 ** 9 ** 9"}, "Pow is not among"),
    "an expression that is required": ({"x": {"_target_": "torch.nn.ReLU", "_requires_": ["$exit()"]}}, "'exit'"),
    "a debugger": ({"x": {"_target_": "torch.nn.ReLU", "_mode_": "debug"}}, "the mode 'debug'"),
    "an address": ({"dataset_dir": "https://example.org/data.zip"}, "address of the network"),
    "an address in an expression": ({"x": "$'s3://bucket/' + @y"}, "address of the network"),
    "pretrained weights": ({"x": {"_target_": "DenseNet121", "pretrained": True}}, "pretrained weights"),
    "a config from elsewhere": ({"x": "%/tmp/other.json::x"}, "none of the bundle's configs"),
    "an id that is not there": ({"x": "@nosuch"}, "there is no id 'nosuch'"),
    "a package that is not there": ({"x": {"_target_": "scripts.net.Net"}}, "package 'scripts'"),
    "a name that is not there": ({"x": {"_target_": "torch.nn.Evil"}}, "there is no 'torch.nn.Evil'"),
}


@pytest.mark.parametrize("evil", EVIL_CONFIGS)
def test_an_evil_config_is_refused_by_name(bundle, evil):
    config, said = EVIL_CONFIGS[evil]
    (bundle / "configs" / "other.json").write_text(json.dumps(config), encoding="utf-8")
    found = check_bundle(bundle)
    assert found and any(said in fault for fault in found), found
    assert all(fault.startswith("configs/other.json: ") for fault in found)


def change_metadata(bundle: Path, **change: Any) -> None:
    path = bundle / "configs" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")


class Evil:
    def __reduce__(self):
        return eval, ("open('pwned', 'w')",)


def pickle_in_weights(bundle: Path) -> None:
    torch.save({"weight": Evil()}, bundle / "models" / "model.pt")
    write_sums(bundle)


def bare_pickle(bundle: Path) -> None:
    (bundle / "models" / "model.pt").write_bytes(pickle.dumps(Evil()))
    write_sums(bundle)


def whole_module(bundle: Path) -> None:
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 1)), bundle / "models" / "model.pt")
    write_sums(bundle)


def script_for_weights(bundle: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 1)).save(str(bundle / "models" / "model.pt"))
    write_sums(bundle)


def logging_conf(bundle: Path, old: str, new: str) -> None:
    path = bundle / "configs" / "logging.conf"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


EVIL_FILES = {
    "a pickle in the weights": (pickle_in_weights, "picklescan finds"),
    "weights that are a bare pickle": (bare_pickle, "picklescan finds"),
    "a module in place of weights": (whole_module, "model.pt: it is damaged, or holds more than tensors"),
    "TorchScript in place of weights": (script_for_weights, "model.pt: it is damaged, or holds more than tensors"),
    "a picture with a script": (lambda b: (b / "docs" / "x.svg").write_text("<svg/>"), "x.svg: files of this kind"),
    "weights that were exchanged": (lambda b: torch.save({}, b / "models" / "model.pt"), "not the file that was"),
    "weights without a sum": (lambda b: (b / "models" / "SHA256SUMS").unlink(), "no SHA256SUMS"),
    "absent weights": (lambda b: (b / "models" / "model.pt").unlink(), "SHA256SUMS: the weights that it lists are not"),
    "further weights": (lambda b: torch.save({}, b / "models" / "other.pt"), "other.pt: no SHA256SUMS"),
    "a script": (lambda b: (b / "net.py").write_text("1"), "net.py: files of this kind"),
    "a library": (lambda b: (b / "models" / "op.so").write_bytes(b"1"), "op.so: files of this kind"),
    "a pickle beside the weights": (lambda b: (b / "models" / "x.pkl").write_bytes(b"1"), "x.pkl: files of this kind"),
    "a link": (lambda b: (b / "docs" / "x.md").symlink_to("/etc/passwd"), "docs/x.md: it is a link"),
    "objects in YAML": (
        lambda b: (b / "configs" / "x.yaml").write_text("x: !!python/object/apply:os.system [id]"),
        "configs/x.yaml: it cannot be read",
    ),
    "a target in YAML": (lambda b: (b / "configs" / "x.yml").write_text("x: {_target_: os.system}"), "package 'os'"),
    "a target in metadata": (lambda b: change_metadata(b, x={"_target_": "os.system"}), "package 'os'"),
    "metadata without a format": (lambda b: change_metadata(b, network_data_format={}), "has no inputs"),
    "a version that did not change": (lambda b: change_metadata(b, version="9"), "does not have the version '9'"),
    "arguments of a handler": (
        lambda b: logging_conf(b, "(sys.stderr,)", "(__import__('os').system('id'),)"),
        "are evaluated and must be",
    ),
    "a handler's class": (lambda b: logging_conf(b, "StreamHandler", "handlers.SocketHandler"), "'handlers.Socket"),
    "no config": (lambda b: shutil.rmtree(b / "configs"), "configs/metadata.json: it is missing"),
}


@pytest.mark.parametrize("evil", EVIL_FILES)
def test_an_evil_file_is_refused_by_name(bundle, evil, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    change, said = EVIL_FILES[evil]
    change(bundle)
    found = check_bundle(bundle)
    assert found and any(said in fault for fault in found), found
    assert not (tmp_path / "pwned").exists()


def test_a_package_may_be_added_but_not_one_in_the_bundle(bundle, tmp_path, monkeypatch):
    config = {"x": {"_target_": "scipy.stats.norm"}}
    (bundle / "configs" / "other.json").write_text(json.dumps(config), encoding="utf-8")
    assert len(check_bundle(bundle)) == 1
    assert check_bundle(bundle, ["scipy"]) == []
    (bundle / "evil_package").mkdir()
    (bundle / "evil_package" / "__init__.py").write_text("raise SystemExit", encoding="utf-8")
    monkeypatch.syspath_prepend(str(bundle))
    config["x"]["_target_"] = "evil_package.x"
    (bundle / "configs" / "other.json").write_text(json.dumps(config), encoding="utf-8")
    assert any("lies in the bundle" in fault for fault in check_bundle(bundle, ["evil_package"]))


def test_the_command_says_it_and_its_exit_code_too(bundle, capsys):
    assert main(["check-bundle", str(bundle)]) == 0
    assert "nothing was found" in capsys.readouterr().out
    (bundle / "setup.py").write_text("1", encoding="utf-8")
    assert main(["check-bundle", str(bundle)]) == 1
    out = capsys.readouterr().out
    assert "setup.py: files of this kind" in out and "refused, for 1 reasons" in out
    assert main(["check-bundle", str(bundle / "none")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_what_a_run_has_left_is_one_sentence(bundle):
    (bundle / "output" / "tensorboard").mkdir(parents=True)
    for name in ("events.out.1", "events.out.2"):
        (bundle / "output" / "tensorboard" / name).touch()
    torch.save({}, bundle / "output" / "model.pt")
    (said,) = [fault for fault in check_bundle(bundle) if not fault.startswith("output/model.pt")]
    assert said.startswith("output: a run has left files here") and said.endswith("--ignore output")
    assert not check_bundle(bundle, ignored=["output"])
