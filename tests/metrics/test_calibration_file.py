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

"""A calibration lies beside its model, and is taken for that of no other."""

from __future__ import annotations

import pytest
import torch

from monai_armed.metrics.calibration import Calibration
from monai_armed.metrics.calibration_file import read_calibrations, write_calibrations


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def calibration():
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(2, (60,), generator=generator)
    return Calibration(torch.randn(60, 1, generator=generator), label, [i % 12 for i in range(60)])


def test_what_is_written_is_read(model, calibration):
    assert read_calibrations(model) == {}
    path = write_calibrations({"mixed": calibration, "fixed": calibration}, model, model.parent)
    found = read_calibrations(model)
    assert path == model.with_name("calibration.json") and list(found) == ["mixed", "fixed"]
    assert vars(found["mixed"]) == vars(calibration)


def test_that_of_another_model_is_refused(model, calibration):
    write_calibrations({"mixed": calibration}, model, model.parent)
    model.write_bytes(b"trained anew")
    with pytest.raises(ValueError, match=r"calibration\.json was made for another model than .*model\.pt"):
        read_calibrations(model)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"model": 1, "calibrations": {"mixed": {}}}', '{"model": 1, "calibr']
)
def test_a_damaged_one_is_refused(model, text):
    model.with_name("calibration.json").write_text(text)
    with pytest.raises(ValueError, match=r"calibration\.json is damaged .*: evaluate .* again, or remove the file"):
        read_calibrations(model)
