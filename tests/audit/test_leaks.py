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
"""Leaks of attributes: against scikit-learn's AUROC, what is planted, and how often there is a false alarm."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from monai_armed.audit.leaks import attribute_leaks, one_a_subject
from monai_armed.metrics.leak import cluster_leak


def test_of_two_levels_it_is_the_leak():
    rng = np.random.default_rng(0)
    sex = rng.choice(["f", "m"], 80)
    score = rng.normal(size=80) - 0.8 * (sex == "m")
    leaks, levels = attribute_leaks(score, pd.DataFrame({"sex": sex}))
    assert leaks["leak"].iloc[0] == pytest.approx(cluster_leak(score, sex == "f"))
    assert levels.set_index("level")["auroc"]["m"] == pytest.approx(roc_auc_score(sex == "m", score))
    assert leaks["p"].iloc[0] <= 0.01 and leaks["leak"].iloc[0] > leaks["chance_high"].iloc[0] > leaks["chance"].iloc[0]


def test_small_and_unknown_levels_are_left_out():
    site = np.array(["a"] * 10 + ["b"] * 10 + ["c"] * 4 + [""] * 6)
    leaks, levels = attribute_leaks(np.arange(30.0), pd.DataFrame({"site": site, "one": ["x"] * 30}))
    assert leaks["attribute"].tolist() == ["site"] and leaks["samples"].iloc[0] == 20
    assert levels["auroc"].tolist() == [0, 1]


def test_its_p_value_is_uniform_where_nothing_leaks():
    rng = np.random.default_rng(1)
    p = [
        attribute_leaks(rng.normal(size=60), pd.DataFrame({"site": rng.choice(list("abcd"), 60)}), seed)[0]["p"].iloc[0]
        for seed in range(200)
    ]
    assert 2 <= np.sum(np.array(p) <= 0.05) <= 20  # 99.9 % of a binomial of 200 and 0.05
    assert 0.4 < np.mean(p) < 0.6


def test_one_image_of_each_subject_and_class():
    subject, label = np.array(["a", "a", "b", "a", "b", "c"]), np.array([0, 0, 0, 1, 0, 1])
    chosen = one_a_subject(subject, label)
    pairs = list(zip(subject[chosen], label[chosen]))
    assert sorted(pairs) == [("a", 0), ("a", 1), ("b", 0), ("c", 1)] and list(chosen) == sorted(chosen)
    assert {tuple(one_a_subject(subject, label, seed)) for seed in range(20)} != {tuple(chosen)}
