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
import pandas as pd
import pytest
import torch
from scipy import stats

from monai_armed.metrics.feature_importance import (
    gradient_at_mean,
    mean_absolute_gradient,
    probe_sign_tests,
    probe_t_tests,
)
from monai_armed.networks.nets import ARMED, DFNN, ClusterInput


def logistic():
    network = torch.nn.Linear(3, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[2.0, -1.0, 0.5]]))
        network.bias.fill_(0.3)
    return network


def test_of_a_logistic_regression_it_is_the_slope_times_p_times_1_minus_p():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    network, weight = logistic(), torch.tensor([2.0, 1.0, 0.5])
    p = (x.mean(0) @ torch.tensor([2.0, -1.0, 0.5]) + 0.3).sigmoid()
    torch.testing.assert_close(gradient_at_mean(network, x), weight * p * (1 - p))
    p = network(x).sigmoid()
    torch.testing.assert_close(mean_absolute_gradient(network, x), weight * (p * (1 - p)).mean().detach())


def test_only_the_fixed_part_counts_when_asked_for():
    torch.manual_seed(0)
    network = ARMED(DFNN(3), 4, (3,), adversary=None)
    with torch.no_grad():
        network.random_effects.loc.normal_()
    network.train()
    x, cluster = torch.randn(20, 3), torch.eye(4)[torch.arange(20) % 4]
    fixed = mean_absolute_gradient(network, x, None, "fixed")
    torch.testing.assert_close(fixed, mean_absolute_gradient(network.network, x))
    assert not torch.allclose(fixed, mean_absolute_gradient(network, x, cluster, "mixed"))
    assert network.training  # as it was


def test_a_cluster_input_network_is_taken_at_the_mean_cluster():
    torch.manual_seed(0)
    network = ClusterInput(torch.nn.Sequential(torch.nn.Linear(3, 1)), 2, "0")
    x, cluster = torch.randn(10, 3), torch.eye(2)[torch.arange(10) % 2]
    layer = network.network[0]
    p = layer(torch.cat([x.mean(0), torch.tensor([0.5, 0.5])])).sigmoid()
    expected = (layer.weight[0, :3].abs() * p * (1 - p)).detach()
    torch.testing.assert_close(gradient_at_mean(network, x, cluster), expected)


def test_probes_are_tested_against_the_least_important_true_feature_of_each_fold():
    importance = np.random.RandomState(0).rand(10, 4)
    table = probe_t_tests(importance)
    least = np.minimum(importance[:, 0], importance[:, 1])
    for row, probe in zip(table.itertuples(), (2, 3)):
        expected = stats.ttest_rel(least, importance[:, probe])
        assert row.probe == probe
        assert (row.t, row.p) == pytest.approx((expected.statistic, expected.pvalue))
    above = importance.copy()
    above[:, :2] += 1
    assert (probe_t_tests(above)["t"] > 5).all()


def test_bad_input():
    with pytest.raises(ValueError, match="importance must be"):
        probe_t_tests(np.ones((1, 4)))
    with pytest.raises(ValueError, match="importance must be"):
        probe_t_tests(np.ones((5, 2)))
    with pytest.raises(ValueError, match="one logit"):
        gradient_at_mean(torch.nn.Linear(3, 2), torch.rand(4, 3))


def test_sign_tests_over_five_probes():
    """All five lower: p = 1/32, as in the paper (0.031)."""
    ranks = pd.DataFrame([[5, 6, 7, 8, 9], [1, 2, 3, 4, 5], [1, 2, 3, 9, 10], [5, 6, 7, 8, 9]], index=list("abcd"))
    p = probe_sign_tests(ranks, "a")
    assert p.to_dict() == {"b": pytest.approx(1 / 32), "c": pytest.approx(0.5), "d": 1.0}
