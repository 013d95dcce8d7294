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
import torch

from monai_armed.networks.layers.object_moments import ObjectMoments
from monai_armed.studies.cells.cohort import MEAN_BATCH, draw_cells, draw_frame
from monai_armed.studies.cells.physics import compose, draw_optics

MOMENTS = ObjectMoments()


@pytest.fixture(scope="module")
def cells():
    return draw_cells(0, 10, 2)[::2]


@pytest.fixture(scope="module")
def images(cells):
    return rendered(cells, 64)


def rendered(cells, size):
    drawn = [compose(draw_optics(draw_frame(cell, 0, size, 0)[0], size), MEAN_BATCH, None) for cell in cells]
    return torch.tensor(np.stack(drawn), dtype=torch.float32)[:, None]


def column(values, name):
    return values[:, MOMENTS.names.index(name)].numpy()


def test_every_moment_has_a_name_and_is_finite(images):
    values = MOMENTS(images)
    assert values.shape == (len(images), len(MOMENTS.names)) == (len(images), 22)
    assert len(set(MOMENTS.names)) == 22
    empty = torch.cat([torch.zeros(1, 1, 64, 64), torch.full((1, 1, 64, 64), 0.5), torch.rand(1, 1, 64, 64)])
    assert values.isfinite().all() and MOMENTS(empty).isfinite().all()


def test_background_gain_and_gradient_drop_out(images):
    plane = 0.1 + 0.02 * torch.linspace(-1, 1, 64)[None, :] - 0.01 * torch.linspace(-1, 1, 64)[:, None]
    before, after = MOMENTS(images), MOMENTS(0.7 * images + plane)
    change = (after - before).square().mean(dim=0).sqrt() / before.std(dim=0)
    assert change.max() < 0.15


def test_direction_plays_no_part(images):
    for turned in (images.rot90(1, (2, 3)), images.flip(3), images.transpose(2, 3)):
        torch.testing.assert_close(MOMENTS(turned), MOMENTS(images), atol=2e-3, rtol=1e-3)


def test_they_hold_size_elongation_and_granules_of_simulated_cells(cells, images):
    values = MOMENTS(images)
    radius = np.array([np.sqrt(cell.shape.semi_axes.prod()) for cell in cells])
    elongation = np.array([cell.shape.semi_axes[0] / cell.shape.semi_axes[1] for cell in cells])
    brightness = np.array([cell.shape.brightness for cell in cells])
    assert np.corrcoef(column(values, "area"), np.log(radius))[0, 1] > 0.95
    assert np.corrcoef(column(values, "elongation"), np.log(elongation))[0, 1] > 0.85
    detail = column(values, "all_detail_0.5")
    size = np.polyfit(np.log(radius), detail, 1)
    assert np.corrcoef(detail - np.polyval(size, np.log(radius)), brightness)[0, 1] > 0.4


def test_blur_is_a_shift_of_the_fine_detail(images):
    kernel = torch.tensor([[1.0, 2.0, 1.0]]) / 4
    blurred = torch.nn.functional.conv2d(images, (kernel.T @ kernel)[None, None], padding=1)
    change = MOMENTS(blurred) - MOMENTS(images)
    fine = column(change, "all_detail_0.5")
    assert fine.mean() < -0.2
    assert fine.std() < 0.6 * abs(fine.mean())


def test_another_size_of_the_image_gives_nearly_the_same(cells, images):
    large, small = MOMENTS(rendered(cells, 128)), MOMENTS(images)
    for name in ("area", "elongation", "mean", "inner_mean"):
        assert np.corrcoef(column(large, name), column(small, name))[0, 1] > 0.9
    np.testing.assert_allclose(column(large, "area"), column(small, "area"), atol=0.15)
