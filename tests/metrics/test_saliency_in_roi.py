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

import math

import numpy as np
import pytest
from scipy import ndimage

from monai_armed.metrics.saliency_in_roi import interval_by_subject, saliency_in_roi

ROWS, COLUMNS = np.mgrid[:40, :40]
BRAIN = (ROWS - 20) ** 2 + (COLUMNS - 20) ** 2 <= 15**2


def square(row: int, column: int, size: int = 4) -> np.ndarray:
    return (ROWS >= row) & (ROWS < row + size) & (COLUMNS >= column) & (COLUMNS < column + size)


def test_even_saliency_has_the_share_of_the_area_and_the_middle_rank():
    region = square(10, 18)
    found = saliency_in_roi(BRAIN, region, BRAIN)
    assert found == {"share": pytest.approx(16 / BRAIN.sum()), "rank": 0.5}


def test_share_counts_the_background_and_not_what_is_negative():
    region = square(18, 18)
    saliency = 1.0 * region + 3.0 * square(0, 0) - 5.0 * square(10, 18)
    assert saliency_in_roi(saliency, region, BRAIN)["share"] == pytest.approx(0.25)
    assert saliency_in_roi(region, region, BRAIN)["share"] == pytest.approx(1.0)


def test_rank_of_a_blob_that_is_in_the_region_or_elsewhere():
    blob = np.exp(-((ROWS - 11.5) ** 2 + (COLUMNS - 19.5) ** 2) / 80)
    assert saliency_in_roi(blob, square(10, 18), BRAIN)["rank"] > 0.99
    assert saliency_in_roi(blob, square(31, 18), BRAIN)["rank"] < 0.05


def test_rank_is_centred_on_chance():
    """Saliency that knows the brain and not the region: in the mean over all regions in the brain the rank is 1/2."""
    rng = np.random.default_rng(0)
    saliency = (1 + 0.5 * ndimage.gaussian_filter(rng.normal(size=BRAIN.shape), 2)).clip(0) * BRAIN
    inside = [(r, c) for r in range(36) for c in range(36) if BRAIN[square(r, c)].all()]
    ranks = [saliency_in_roi(saliency, square(r, c), BRAIN)["rank"] for r, c in inside]
    assert np.mean(ranks) == pytest.approx(0.5, abs=1e-6)


def test_positions_that_hang_out_of_the_brain_do_not_count():
    half = square(0, 20, 40)
    saliency = np.where(half, 1.0, 5.0)
    assert saliency_in_roi(saliency, square(10, 25), half)["rank"] == 0.5


def test_a_region_that_is_not_all_in_the_brain_has_a_rank():
    assert 0 <= saliency_in_roi(BRAIN, square(3, 18), BRAIN)["rank"] < 0.5


def test_volumes():
    brain = np.ones((6, 7, 8), bool)
    region = np.zeros_like(brain)
    region[1:3, 2:4, 3:5] = True
    assert saliency_in_roi(region, region, brain) == {"share": 1.0, "rank": pytest.approx(1 - 0.5 / (5 * 6 * 7))}


def test_no_saliency_has_no_share():
    found = saliency_in_roi(-1.0 * BRAIN, square(18, 18), BRAIN)
    assert math.isnan(found["share"]) and math.isnan(found["rank"])


@pytest.mark.parametrize(
    "saliency, roi, brain, message",
    [
        (np.ones((3, 3)), BRAIN, BRAIN, "one shape"),
        (np.full(BRAIN.shape, np.nan), BRAIN, BRAIN, "NaN"),
        (BRAIN, np.zeros_like(BRAIN), BRAIN, "empty"),
        (BRAIN, BRAIN, np.zeros_like(BRAIN), "empty"),
    ],
)
def test_bad_input_is_named(saliency, roi, brain, message):
    with pytest.raises(ValueError, match=message):
        saliency_in_roi(saliency, roi, brain)


def test_interval_is_over_subjects():
    subjects = np.repeat([f"s{k}" for k in range(30)], 5)
    of_subject = np.repeat(np.random.default_rng(0).normal(size=30), 5)
    mean, low, high = interval_by_subject(of_subject, subjects)
    assert mean == pytest.approx(of_subject.mean()) and low < mean < high
    once = interval_by_subject(of_subject[::5], subjects[::5])
    assert (mean, low, high) == pytest.approx(once)
    assert high - low == pytest.approx(2 * 1.96 * of_subject[::5].std() / math.sqrt(30), rel=0.15)


def test_interval_of_few_subjects():
    assert interval_by_subject([1.0, 3.0, np.nan], ["a", "a", "b"])[0] == 2.0
    assert all(map(math.isnan, interval_by_subject([1.0, 3.0], ["a", "a"])[1:]))
    assert all(map(math.isnan, interval_by_subject([np.nan], ["a"])))
