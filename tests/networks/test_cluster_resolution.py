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

import pytest
import torch
from wrapped_networks import set_random, wrapped

from monai_armed.networks import DFNN, ZPredictor
from monai_armed.networks.nets.cluster_resolution import ClusterResolution


def test_unknown_clusters_by_policy():
    net, x, _ = wrapped("DFNN")
    set_random(net).eval()
    cluster = torch.tensor([0, 1, -1, -1])
    with pytest.raises(ValueError, match="cluster of 2 of 4 samples is not known"):
        net(x, cluster, unknown="error")
    with pytest.raises(ValueError, match="no cluster was given"):
        net(x, unknown="error")
    with pytest.raises(ValueError, match="needs a Z-predictor"):
        net(x, cluster, unknown="infer")
    z_predictor = ZPredictor(DFNN(4, 5), 5).eval()
    net.attach_z_predictor(z_predictor)
    z = z_predictor(x)
    torch.testing.assert_close(z.sum(1), torch.ones(4))
    z[:2] = torch.nn.functional.one_hot(cluster[:2], 5).float()
    torch.testing.assert_close(net(x, cluster), net(x, z))
    torch.testing.assert_close(net(x), net(x, z_predictor(x)))
    torch.testing.assert_close(net(x, unknown="population"), net(x, effects="fixed"))
    net.attach_z_predictor(z_predictor, max_entropy=0.0)  # nothing is sure enough
    torch.testing.assert_close(net(x), net(x, effects="fixed"))


@pytest.mark.parametrize(
    "cluster, message",
    [
        (torch.tensor([0, 1, 2, 5]), "cluster index 5 is out of range: the network has clusters 0 to 4"),
        (torch.tensor([0, 1, 2, -2]), "cluster index -2 is out of range"),
        (torch.tensor([0, 1, 2]), r"must have shape \(batch,\) = \(4,\), got \(3,\)"),
        (torch.rand(4, 6), r"\(4, 5\), got \(4, 6\)"),
        (torch.rand(4), "a cluster index must be an integer tensor"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_bad_clusters(cluster, message, training):
    net, x, _ = wrapped("DFNN")
    net.train(training)
    with pytest.raises(ValueError, match=message):
        net(x, cluster)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32])
def test_index_of_any_integer_type(dtype):
    net, x, cluster = wrapped("DFNN")
    net.eval()
    torch.testing.assert_close(net(x, cluster.to(dtype)), net(x, cluster))


def test_cluster_that_is_no_tensor():
    net, x, cluster = wrapped("DFNN")
    with pytest.raises(ValueError, match="must be a tensor of indices or a dict of such by factor, got list"):
        net(x, cluster.tolist())


@pytest.mark.parametrize("max_entropy", [None, 0.9])
@pytest.mark.parametrize("adapted_to", [0, 1])
def test_who_knows_one_cluster_infers_none(max_entropy, adapted_to):
    clusters = ClusterResolution(1)
    clusters.attach_z_predictor(that_says(torch.ones(1)), max_entropy)
    clusters.factors["cluster"] += adapted_to
    assert clusters.infer(torch.rand(3, 2)).tolist() == [[0.0] * (1 + adapted_to)] * 3


def test_guessing_is_guessing_of_what_the_z_predictor_knows():
    clusters = ClusterResolution(2)
    clusters.attach_z_predictor(that_says(torch.full((2,), 0.5)), 0.9)
    clusters.factors["cluster"] += 2  # adapted to two more: ln 2 / ln 4 is but .5
    assert clusters.infer(torch.rand(3, 2)).tolist() == [[0.0] * 4] * 3


def that_says(z: torch.Tensor) -> torch.nn.Module:
    class Says(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return z.expand(len(x), -1)

    return Says()
