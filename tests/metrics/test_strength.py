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

"""The strength that is chosen by rule is the lowest leak among those that predict as well as the best."""

from __future__ import annotations

import numpy as np
import pytest

from monai_armed.metrics.audit import LayerFeatures
from monai_armed.metrics.strength import choose_strength, layer_leaks


def test_lowest_leak_within_one_standard_error_of_the_best():
    score, error, leak = [0.90, 0.88, 0.86, 0.50], [0.03, 0.0, 0.1, 0.1], [0.99, 0.80, 0.60, 0.50]
    assert choose_strength(score, error, leak) == 1  # the standard error of the best one counts, and not its own
    assert choose_strength(score, [0.05, 0, 0, 0], leak) == 2
    assert choose_strength(score, [0.0] * 4, leak) == 0


def test_a_leak_below_chance_is_no_better_than_chance():
    score, error = [0.90, 0.89, 0.88], [0.05] * 3
    assert choose_strength(score, error, [0.9, 0.49, 0.2]) == 1
    assert choose_strength(score, error, [0.15, 0.1, 0.05], chance=0.1) == 1


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_trainings_that_failed_are_not_taken(lost):
    values = np.array([[0.8, 0.9], [0.1, 0.1], [0.9, 0.5]])
    values[lost, 1] = np.nan
    assert choose_strength(*values) == 0


def test_what_cannot_be_chosen_among_is_said():
    with pytest.raises(ValueError, match=r"one number for each training, got shapes \(2,\), \(1,\) and \(2,\)"):
        choose_strength([0.9, 0.8], [0.1], [0.5, 0.6])
    with pytest.raises(ValueError, match=r"must not be negative, got -0\.1"):
        choose_strength([0.9], [-0.1], [0.5])
    with pytest.raises(ValueError, match="all have failed"):
        choose_strength([np.nan, 0.8], [0.1, 0.1], [0.5, np.inf])


def _features(seed: int, with_label: bool) -> LayerFeatures:
    """Of 3 clusters whose share of class 1 differs; one layer tells the cluster, one the class, one nothing."""
    random = np.random.default_rng(seed)
    cluster = np.arange(900) % 3
    label = (random.random(900) < np.array([0.1, 0.5, 0.9])[cluster]).astype(int)
    noise = random.standard_normal((3, 900, 4))
    layers = {"cluster": noise[0] + 3 * np.eye(4)[cluster], "class": noise[1] + 3 * np.eye(4)[label], "none": noise[2]}
    return LayerFeatures(layers, cluster, label if with_label else None)


def test_layers_are_probed_within_the_class():
    leaks = layer_leaks(_features(0, True), _features(1, True))
    assert leaks["cluster"] > 0.95
    assert [leaks["class"], leaks["none"]] == pytest.approx([0.5, 0.5], abs=0.05)
    assert (
        layer_leaks(_features(0, False), _features(1, False))["class"] > 0.6
    )  # what tells the class tells the cluster
    other = _features(1, True)
    other.layers.pop("none")
    with pytest.raises(ValueError, match="give the same"):
        layer_leaks(_features(0, True), other)
