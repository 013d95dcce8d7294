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

import numpy as np
import pytest

from monai_armed.studies.cells.ghosts import ghost_energy


def square(side=32, low=12, high=20):
    mask = np.zeros((1, side, side), bool)
    mask[:, low:high, low:high] = True
    return mask


def test_what_is_painted_outside_counts_and_what_is_inside_does_not():
    mask, truth = square(), np.zeros((1, 32, 32))
    inside, outside = truth.copy(), truth.copy()
    inside[0, 14:18, 14:18] = 1.0
    outside[0, 2:6, 2:6] = 0.5
    assert ghost_energy(inside, truth, mask) == 0
    assert ghost_energy(outside, truth, mask) == pytest.approx(16 * 0.25 / (32 * 32 - 12 * 12))


def test_the_edge_of_the_cell_does_not_count():
    mask, truth = square(), np.zeros((1, 32, 32))
    rim = truth.copy()
    rim[0, 10:22, 10:22] = 1.0  # two pixels wider than the mask
    assert ghost_energy(rim, truth, mask) == 0
    assert ghost_energy(rim, truth, mask, margin=1) > 0


def test_noise_has_its_variance_and_full_masks_are_left_out():
    masks = np.concatenate([square(), np.ones((1, 32, 32), bool)])
    noise = 0.1 * np.random.default_rng(0).standard_normal((2, 32, 32))
    assert ghost_energy(noise, np.zeros_like(noise), masks) == pytest.approx(0.01, rel=0.15)
    with pytest.raises(ValueError, match="no pixel"):
        ghost_energy(noise[1:], noise[1:], masks[1:])
    with pytest.raises(ValueError, match=r"\(1, 32, 32\)"):
        ghost_energy(noise, noise[:1], masks)
