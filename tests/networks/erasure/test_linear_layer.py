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
from sklearn.linear_model import LogisticRegression
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from monai_armed.networks.erasure import cluster_means, erase_directions

CLUSTERS, UNITS = 4, 10


@pytest.fixture
def data():
    """A linear layer, its inputs with a mean of their own in each cluster, and the clusters."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(12, UNITS)
    cluster = torch.arange(400) % CLUSTERS
    inputs = torch.randn(400, 12) * torch.linspace(0.2, 3, 12) + torch.randn(CLUSTERS, 12)[cluster]
    return layer, inputs, cluster


def test_cluster_means_are_the_covariance_between_clusters():
    features = torch.tensor([[0.0], [2.0], [5.0], [5.0], [99.0]])
    cluster = torch.tensor([0, 0, 1, 1, -1])  # of the last one it is not known
    means = cluster_means(features, cluster, 3)
    torch.testing.assert_close(means, torch.tensor([[-2.0], [2.0], [0.0]]) * 0.5**0.5, check_dtype=False)


def test_no_linear_classifier_names_the_cluster_after_erasure(data):
    layer, inputs, cluster = data
    before, names = layer(inputs).detach(), cluster.numpy()
    assert LogisticRegression(max_iter=1000).fit(before.numpy(), names).score(before.numpy(), names) > 0.6
    erase_directions(layer, before, cluster_means(before, cluster, CLUSTERS), shrinkage=0.0)
    after = layer(inputs).detach()
    torch.testing.assert_close(after.mean(0), before.mean(0), atol=1e-4, rtol=0)
    assert cluster_means(after, cluster, CLUSTERS).abs().max() < 1e-4
    classifier = LogisticRegression(max_iter=1000).fit(after.numpy(), names)
    assert abs(classifier.predict_proba(after.numpy()) - 1 / CLUSTERS).max() < 0.01  # no opinion at all


def test_erasure_changes_no_more_than_it_must(data):
    layer, inputs, cluster = data
    before = layer(inputs).detach()
    projection = erase_directions(layer, before, cluster_means(before, cluster, CLUSTERS), shrinkage=0.0)
    assert torch.linalg.matrix_rank(projection) == UNITS - (CLUSTERS - 1)
    after = layer(inputs).detach()
    centred = before - before.mean(0)
    torch.testing.assert_close((centred.double() @ projection).float(), after - before.mean(0), atol=1e-3, rtol=0)
    means = torch.stack([before[cluster == k].mean(0) for k in range(CLUSTERS)]) - before.mean(0)
    otherwise = centred - centred @ torch.linalg.pinv(means) @ means  # erases the same means, by another way
    assert (after - before).square().mean() < (otherwise - centred).square().mean()


def test_at_most_half_of_the_units_are_erased():
    torch.manual_seed(0)
    layer, inputs, cluster = torch.nn.Linear(12, UNITS, bias=False), torch.randn(90, 12), torch.arange(90) % 9
    features = layer(inputs).detach()
    with pytest.warns(UserWarning, match="8 directions .* erased are the strongest 5"):
        projection = erase_directions(layer, features, cluster_means(features, cluster, 9))
    assert torch.linalg.matrix_rank(projection, rtol=1e-6) == UNITS // 2
    assert layer.bias is not None and layer(inputs).shape == (90, UNITS)


def test_units_that_do_not_vary_are_no_obstacle(data):
    layer, inputs, cluster = data
    with torch.no_grad():
        layer.weight[3] = 0
    features = layer(inputs).detach()
    erase_directions(layer, features, cluster_means(features, cluster, CLUSTERS))
    assert layer(inputs).isfinite().all()


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.randn(5, 3), "10 outputs"),
        (torch.full((5, UNITS), torch.nan), "finite"),
        (torch.randn(1, UNITS), "two samples"),
    ],
)
def test_features_of_another_layer_or_none_are_refused(features, message):
    with pytest.raises(ValueError, match=message):
        erase_directions(torch.nn.Linear(4, UNITS), features, torch.randn(2, UNITS))


class LargestTensor(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation makes."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.size = max([self.size, *(t.numel() for t in tree_leaves(result) if isinstance(t, torch.Tensor))])
        return result


def test_memory_does_not_grow_with_samples_times_clusters():
    features, cluster = torch.randn(2000, 3), torch.arange(2000) % 1500
    with LargestTensor() as largest:
        means = cluster_means(features, cluster, 1500)
    assert largest.size == features.numel()
    means_of = torch.stack([features[cluster == k].double().mean(0) for k in range(1500)])
    share = torch.bincount(cluster)[:, None] / 2000
    torch.testing.assert_close(means, (means_of - features.double().mean(0)) * share.double().sqrt())


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        (torch.zeros(3, dtype=torch.long), "5 samples need as many cluster indices"),
        (torch.zeros(5), "torch.float32"),
        (torch.tensor([0, 1, 2, 3, -1]), "from -1 to 3: they must be from 0 to 2"),
    ],
)
def test_clusters_that_do_not_fit_the_samples_are_refused(cluster, message):
    with pytest.raises(ValueError, match=message):
        cluster_means(torch.randn(5, 2), cluster, 3)


@pytest.mark.parametrize(
    ("layer", "directions", "message"),
    [
        (torch.nn.Conv2d(4, UNITS, 1), torch.randn(2, UNITS), "linear layer"),
        (torch.nn.Linear(4, 1), torch.randn(2, 1), "two outputs or more"),
        (torch.nn.Linear(4, UNITS), torch.empty(0, UNITS), "0 directions"),
        (torch.nn.Linear(4, UNITS), torch.full((2, UNITS), torch.nan), "finite"),
    ],
)
def test_layers_and_directions_that_nothing_can_be_erased_from_are_refused(layer, directions, message):
    with pytest.raises(ValueError, match=message):
        erase_directions(layer, torch.randn(5, directions.shape[1]), directions)
