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

from monai_armed.studies.cells.image_corrections import ImageCorrections

SIDE = 32
GRADIENT = np.linspace(0, 0.2, SIDE)[None, None, None, :]


def studies(number=40, seed=0):
    """The same content in two batches: the second has twice the gain, a background of 0.3 and a gradient."""
    rng = np.random.default_rng(seed)
    content = np.zeros((number, 1, SIDE, SIDE))
    for image, (y, x) in zip(content, rng.integers(8, 18, (number, 2))):
        image[0, y : y + 6, x : x + 6] = rng.uniform(0.1, 0.3)
    content += 0.005 * rng.standard_normal(content.shape)
    return content + 0.1, 2 * content + 0.3 + GRADIENT


@pytest.fixture
def made():
    first, second = studies()
    images = np.concatenate([first, second]).astype(np.float32)
    return ImageCorrections(images, np.repeat([0, 1], len(first))), first, second


@pytest.mark.parametrize(("way", "share"), [("shift", 0.5), ("moments", 0.3), ("histogram", 0.5), ("flat_field", 0.3)])
def test_a_batchs_images_look_more_like_the_others(made, way, share):
    corrections, first, second = made
    shown = corrections(way, first, np.zeros(len(first), int), 1)
    assert np.square(shown - second).mean() < share * np.square(first - second).mean()


@pytest.mark.parametrize("way", ["shift", "moments", "flat_field"])
def test_as_its_own_batch_is_the_image_itself(made, way):
    corrections, first, second = made
    both, own = np.concatenate([first[:3], second[:3]]), np.repeat([0, 1], 3)
    for target in (0, 1):
        np.testing.assert_allclose(corrections(way, both, own, target)[own == target], both[own == target], atol=1e-6)


@pytest.mark.parametrize("way", ["shift", "moments", "histogram", "flat_field"])
def test_without_their_batch_two_batches_have_the_same_mean(made, way):
    corrections, first, second = made
    means = [corrections(way, x, np.full(len(x), j), -1).mean() for j, x in enumerate((first, second))]
    assert abs(means[0] - means[1]) < 0.1 * abs(first.mean() - second.mean())


def test_another_way_is_refused(made):
    with pytest.raises(ValueError, match="got 'magic'"):
        made[0]("magic", made[1], np.zeros(40, int), 1)
