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

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_armed.transforms import SkullStrip
from monai_armed.transforms.skull_strip import air_level

SIZE = 32


def head(seed=0):
    """Noisy air, dark skull, bright scalp, and a brain from fluid to white matter; where the brain is."""
    rng = np.random.default_rng(seed)
    radius = np.linalg.norm(np.indices((SIZE,) * 3) - (SIZE - 1) / 2, axis=0)
    values = np.abs(rng.normal(0, 4, radius.shape))
    values[radius < 14] = rng.uniform(80, 140, radius.shape)[radius < 14]
    values[radius < 12] = rng.uniform(5, 15, radius.shape)[radius < 12]
    brain = radius < 10
    values[brain] = rng.uniform(25, 120, radius.shape)[brain]
    return values.astype(np.float32), brain


@pytest.mark.parametrize("scale", [1.0, 0.01, 30.0])
@pytest.mark.parametrize("offset", [0.0, 100.0, -50.0, -1000.0])
def test_the_level_of_the_air_is_found(offset, scale):
    values, brain = head()
    assert air_level(scale * (values + offset), brain) == pytest.approx(scale * (offset + 4), abs=5 * scale)


@pytest.mark.parametrize(
    ("change", "level"),
    [
        (lambda v: np.pad(v + 100, 16), 104),  # zeros around a scan with an offset
        (lambda v: np.pad(v, 16, constant_values=-1000), 4),
        (lambda v: np.where(v < 20, -1000, v), 20),  # a mark where air was: no more than the brain's darkest
        (lambda v: np.where(v < 20, 300, v), 20),
        (lambda v: np.maximum(v, 50), 50),
    ],
)
def test_values_that_mark_places_without_a_measurement_are_no_air(change, level):
    values, brain = head()
    changed = change(values)
    brain = np.pad(brain, (changed.shape[0] - SIZE) // 2)
    assert air_level(changed, brain) == pytest.approx(level, abs=6)


def test_a_brain_that_was_stripped_and_scaled_before_has_no_negative_values():
    values, brain = head()
    scaled = np.where(brain, (values - 70) / 30, 0)
    assert air_level(scaled, brain) == pytest.approx(scaled.min(), abs=0.01)


@pytest.mark.parametrize("offset", [0.0, 100.0, -1000.0])
def test_an_offset_of_the_scan_leaves_no_trace(offset):
    values, brain = head()

    class Network:
        def run(self, image):
            return None, nib.Nifti1Image(brain.astype(np.uint8), image.affine), None

    strip = SkullStrip.__new__(SkullStrip)
    strip.network = Network()
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0]))
    found = strip(MetaTensor(torch.from_numpy(values + np.float32(offset))[None], affine=affine))
    assert found.shape == (1, SIZE, SIZE, SIZE) and found.min() == 0
    assert ((found[0].numpy() > 0) == brain).all()
    wanted = strip(MetaTensor(torch.from_numpy(values)[None], affine=affine))
    torch.testing.assert_close(found.as_tensor(), wanted.as_tensor(), atol=1e-3, rtol=0)
    assert found.meta["air"] == pytest.approx(wanted.meta["air"] + offset, abs=1e-3)
    assert found.meta["brain_volume"] == pytest.approx(brain.sum() * 8 / 1000)
