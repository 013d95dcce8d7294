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

"""ONNX of the bundles of tables: the shipped network gives the same in another runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from monai.bundle import ConfigParser, onnx_export

BUNDLES = Path(__file__).parents[2] / "bundles"
pytestmark = pytest.mark.usefixtures("untouched_interpreter")


@pytest.mark.parametrize(("name", "features"), [("armed_mci", 37), ("armed_spirals", 2)])
def test_onnx_of_a_table_gives_the_same(name, features, tmp_path):
    root, file = BUNDLES / name, str(tmp_path / "model.onnx")
    config, weights = str(root / "configs" / "inference.json"), str(root / "models" / "model.pt")
    given = {"ckpt_path": weights, "bundle_root": str(root)}
    parser = ConfigParser()
    parser.read_config(config)
    parser.update(given)
    network = parser.get_parsed_content("network").eval()
    names = {"input_names": ["image"], "output_names": ["logit"]}
    meta = str(root / "configs" / "metadata.json")
    onnx_export(
        "network_def", file, weights, meta, config, use_trace=True, input_shape=[2, features], converter_kwargs=names,
        **given,
    )  # fmt: skip
    x = torch.randn(2, features, generator=torch.Generator().manual_seed(0))
    (got,) = onnxruntime.InferenceSession(file).run(None, {"image": x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(got, network(x).numpy(), rtol=1e-4, atol=1e-5)
