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

from monai_armed.metrics.leak import cluster_leak, mean_cluster_leak


def test_none_and_all():
    assert cluster_leak([1, 2, 1, 2], [True, True, False, False]) == 0.5
    assert cluster_leak([3, 4, 1, 2], [True, True, False, False]) == 1.0


def test_the_sign_does_not_matter():
    score = np.random.default_rng(0).normal(size=50)
    attribute = score + np.random.default_rng(1).normal(size=50) > 0
    assert cluster_leak(score, attribute) == pytest.approx(cluster_leak(-score, attribute))
    assert 0.6 < cluster_leak(score, attribute) < 0.95


@pytest.mark.parametrize("attribute", [[True, True], [False, False]])
def test_nan_where_there_is_nothing_to_tell_apart(attribute):
    assert math.isnan(cluster_leak([0.1, 0.2], attribute))


def test_the_mean_is_over_clusters():
    score, cluster = np.random.default_rng(0).normal(size=60), np.arange(60) % 3
    each = [cluster_leak(score, cluster == one) for one in range(3)]
    assert mean_cluster_leak(score, [f"site {k}" for k in cluster]) == pytest.approx(np.mean(each))
    assert math.isnan(mean_cluster_leak(score, np.zeros(60)))
