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

"""ONNX files as others make them: a batch of one image, channels last."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from monai_armed.audit.onnx import OnnxRun

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def flatten(path, shape) -> None:
    """A network that flattens its input, of a declared shape."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, None)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.mark.parametrize("batch", [1, 2, "n"])
def test_a_batch_of_another_size_is_run_in_parts(batch, tmp_path):
    flatten(tmp_path / "a.onnx", [batch, 3, 4, 5])
    x = torch.rand(5, 3, 4, 5)
    (found,) = OnnxRun(tmp_path / "a.onnx")(x)
    torch.testing.assert_close(found, x.flatten(1))


def test_channels_last_are_given_so(tmp_path):
    flatten(tmp_path / "a.onnx", ["n", 4, 5, 3])
    x = torch.rand(2, 3, 4, 5)
    with pytest.warns(UserWarning, match="channels last"):
        (found,) = OnnxRun(tmp_path / "a.onnx")(x)
    torch.testing.assert_close(found, x.movedim(1, -1).flatten(1))


def test_onnx_runtime_keeps_no_telemetry(tmp_path):
    """It does so from 1.32 on as soon as it is imported, in the home folder, to be sent."""
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    command = "import monai_armed.audit.onnx, sys; assert 'onnxruntime' in sys.modules"
    environment = {**kept, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", command], env=environment, check=True, timeout=120)
    assert not list(tmp_path.rglob("*onnxruntime*"))
