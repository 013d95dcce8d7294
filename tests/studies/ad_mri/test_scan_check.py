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

import re

import pytest

from monai_armed.studies.ad_mri.scan_check import judge_scan

GOOD = {
    "similarity": 0.71,
    "brain_volume_ml": 1500.0,
    "voxel_mm": [1.0, 1.0, 1.2],
    "turned": False,
    "axes": "RAS",
    "axes_in_header": "RAS",
    "missing": {"brain": 0.01, "top": 0.05, "temporal poles": 0.0},
}


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        ({}, "ok", ""),
        ({"turned": True, "axes_in_header": "RIP"}, "turned", "its axes run RAS, not RIP .* may be mirrored"),
        ({"similarity": 0.4}, "left out", "is 0.40, below 0.5: it is no T1-weighted head, or could not be registered"),
        ({"similarity": 0.4986}, "left out", "is 0.499, below 0.5"),
        ({"similarity": 0.499999}, "left out", "is 0.499999, below 0.5"),
        (
            {"similarity": 0.42, "missing": {"brain": 0.08, "top": 0.84}},
            "left out",
            r"is 0.42, below 0.5: 8% of the brain are missing \(top 84%\); look at its slice, and keep it",
        ),
        ({"brain_volume_ml": 93.4, "similarity": 0.3}, "left out", "has 93.4 ml, which no human brain has .* animal"),
        ({"brain_volume_ml": 1.5e-6}, "left out", "has 1.5e-06 ml, .* the voxel size in its header is wrong"),
        ({"error": "image file x cannot be read."}, "left out", "image file x cannot be read."),
    ],
)
def test_the_reason_is_the_true_one(change, status, reason):
    found = judge_scan({**GOOD, **change})
    assert found["status"] == status
    assert re.search(reason, found["reason"]) and bool(reason) == bool(found["reason"])


@pytest.mark.parametrize(
    ("change", "remarks"),
    [
        ({}, ""),
        ({"voxel_mm": [1.0, 1.0, 5.0]}, "slices of 5.0 mm: its coronal slice is interpolated"),
        ({"missing": {"brain": 0.02, "temporal poles": 0.9}}, "2% of the brain are missing (temporal poles 90%)"),
        ({"missing": {"brain": 0.12, "top": 0.15}}, "12% of the brain are missing"),
    ],
)
def test_what_the_user_should_know_changes_no_status(change, remarks):
    assert judge_scan({**GOOD, **change}) == {"status": "ok", "reason": "", "remarks": remarks}


def test_the_user_has_the_last_word_where_there_is_something_to_keep():
    bad = {**GOOD, "similarity": 0.42}
    assert judge_scan(bad, min_similarity=0.4)["status"] == "ok"
    assert judge_scan(bad, keep=True)["status"] == "kept" and "0.42" in judge_scan(bad, keep=True)["reason"]
    assert judge_scan(GOOD, keep=True)["status"] == "ok"
    assert "may be mirrored" in judge_scan({**bad, "turned": True}, keep=True)["reason"]
    assert "may be mirrored" not in judge_scan({**bad, "turned": True})["reason"]
    assert judge_scan({"error": "gone"}, keep=True)["status"] == "left out"
