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
"""Scores by site: against scikit-learn, closed forms, and what chance alone makes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from monai_armed.audit.site_scores import auroc_by_site, calibration_by_site, coverage_by_site, mean_by_site


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    site, score = rng.choice(list("abcd"), 800), rng.normal(size=800) * 2
    label = (rng.random(800) < expit(score)).astype(int)
    return label, score, site


def test_auroc_of_each_site(data):
    label, score, site = data
    table = auroc_by_site(label, score, site, np.arange(800)).set_index("site")
    assert table["auroc"]["all"] == pytest.approx(roc_auc_score(label, score))
    for name in "abcd":
        assert table["auroc"][name] == pytest.approx(roc_auc_score(label[site == name], score[site == name]))
        row = table.loc[name]
        assert row["low_worst"] < row["low"] < row["auroc"] < row["high"] < row["high_worst"]


def test_a_site_of_one_class_has_no_auroc(data):
    label, score, site = data
    label[site == "b"] = 0
    table = auroc_by_site(label, score, site, np.arange(800)).set_index("site")
    assert np.isnan(table["auroc"]["b"]) and np.isfinite(table["auroc"]["a"])


def test_calibration_of_right_and_of_exaggerated_probabilities(data):
    label, score, site = data
    right, wrong = calibration_by_site(label, score, site), calibration_by_site(label, 3 * score, site)
    assert (right["calibration_error"] < 1.5 * right["by_chance_high"]).all()
    assert (wrong["calibration_error"] > 1.5 * wrong["by_chance_high"]).all()


def test_sets_cover_sites_that_are_alike_and_not_one_that_differs(data):
    label, score, site = data
    table = coverage_by_site(label, score, site).set_index("site")
    assert table["guaranteed"].iloc[0] == pytest.approx(0.9 * 3 / 4)
    assert table["covered"]["mean"] == pytest.approx(0.9, abs=0.03)
    flipped = np.where(site == "d", -score, score)
    assert coverage_by_site(label, flipped, site).set_index("site")["covered"]["d"] < 0.8
    assert coverage_by_site(label, score, np.where(site < "c", "a", "b")).empty


def test_mean_of_subjects():
    table = mean_by_site(np.array([0.5, 0.7, 0.9, np.nan]), np.array(list("aabb")), np.array(list("wxyz")))
    assert table["dice"].tolist() == pytest.approx([0.7, 0.6, 0.9])
    assert table["images"].tolist() == [3, 2, 1] and np.isnan(table["low"].iloc[2])
