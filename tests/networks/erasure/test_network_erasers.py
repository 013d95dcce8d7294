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

"""A trained network's layers are erased from its own features: the clusters go, and what tells the label stays."""

from __future__ import annotations

import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import nn

from monai_armed.engines import PrepareBatchCluster
from monai_armed.networks import ARMED, CNN, DFNN
from monai_armed.networks.erasure import ClusterEraser, fit_erasers

SHARES = torch.tensor([0.3, 0.6])  # of class 1 in each cluster


def _samples(num: int, seed: int, shift: float = 3.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tables of 8 columns: the class moves the first two, the cluster all but the first; and label and cluster."""
    generator = torch.Generator().manual_seed(seed)
    cluster = torch.arange(num) % 2
    label = torch.bernoulli(SHARES[cluster], generator=generator).long()
    x = torch.randn(num, 8, generator=generator)
    x[:, :2] += 1.5 * label.unsqueeze(1)
    x[:, 1:] += shift * cluster.unsqueeze(1)
    return x, label, cluster


def _batches(x: torch.Tensor, label: torch.Tensor, cluster: torch.Tensor, size: int = 200) -> list[dict]:
    parts = zip(x.split(size), label.split(size), cluster.split(size))
    return [dict(zip(("image", "label", "cluster"), part)) for part in parts]


def _within(score: torch.Tensor, label: torch.Tensor, group: torch.Tensor) -> float:
    """Mean AUROC within the groups."""
    return sum(roc_auc_score(label[group == g], score[group == g].ravel()) for g in group.unique()) / 2


def _trained(x: torch.Tensor, label: torch.Tensor, hidden: tuple[int, ...] = (16, 8)) -> DFNN:
    """A conventional network, that uses the cluster as well as it can."""
    torch.manual_seed(0)
    network = DFNN(x.shape[1], hidden_channels=hidden)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(network(x), label[:, None].float()).backward()
        optimizer.step()
    return network.eval()


def _probe(net: ARMED, learn: tuple, test: tuple) -> float:
    """How well what the last eraser leaves tells the cluster to a linear probe, within class, on new data."""
    with torch.no_grad():
        features = [net.erasers[-1](net.fixed_and_latent(x)[1]).numpy() for x, _, _ in (learn, test)]
    found = []
    for k in (0, 1):
        of_k, test_of_k = learn[1] == k, test[1] == k
        probe = LogisticRegression(max_iter=500).fit(features[0][of_k], learn[2][of_k])
        found.append(roc_auc_score(test[2][test_of_k], probe.decision_function(features[1][test_of_k])))
    return sum(found) / 2


@pytest.fixture(scope="module")
def data():
    return _samples(2000, seed=0), _samples(2000, seed=1), _samples(2000, seed=2)


@pytest.fixture(scope="module")
def network(data):
    return _trained(*data[0][:2])


@torch.no_grad()
def test_the_cluster_goes_and_the_label_stays(data, network):
    train, learn, test = data
    net = ARMED(network, 2, (8,), adversary=None, erasers={"hidden.1": ClusterEraser(8)}).eval()
    assert _probe(net, learn, test) > 0.95
    before = _within(net(test[0], effects="fixed"), test[1], test[2])
    leak_before = _within(net(test[0], effects="fixed"), test[2], test[1])
    ranks = fit_erasers(net, _batches(*train), num_classes=2)
    assert set(ranks) == {"hidden.1"} and 1 <= ranks["hidden.1"] <= 2
    fixed = net(test[0], effects="fixed")
    assert abs(_within(fixed, test[2], test[1]) - 0.5) < 0.06 < abs(leak_before - 0.5)
    assert _within(fixed, test[1], test[2]) > before - 0.02
    assert abs(_probe(net, learn, test) - 0.5) < 0.1


def test_several_layers_each_after_those_before_it(data, network):
    train, learn, test = data
    erasers = {"hidden.1": ClusterEraser(8), "hidden.0": ClusterEraser(16)}
    net = ARMED(network, 2, (8,), adversary=None, erasers=erasers).eval()
    ranks = fit_erasers(net, _batches(*train), num_classes=2)
    assert list(ranks) == ["hidden.0", "hidden.1"]
    with torch.no_grad():
        x, label, cluster = train
        first = erasers["hidden.0"](network.hidden[0](x))
        second = erasers["hidden.1"](network.hidden[1](first))
    for features in (first, second):
        for k in (0, 1):
            means = [features[(label == k) & (cluster == c)].mean(0) for c in (0, 1)]
            torch.testing.assert_close(*means, rtol=0, atol=0.12)  # of what is above noise nothing is left
    assert abs(_probe(net, learn, test) - 0.5) < 0.1


def test_fitting_anew_forgets_what_was_fitted_before(data, network):
    train, other = data[0], _samples(2000, seed=5, shift=-2.0)
    nets = [ARMED(network, 2, (8,), adversary=None, erasers={"hidden.1": ClusterEraser(8)}) for _ in range(2)]
    fit_erasers(nets[0], _batches(*other), num_classes=2)
    for net in nets:
        fit_erasers(net, _batches(*train), num_classes=2)
    torch.testing.assert_close(nets[0].erasers[0].matrix, nets[1].erasers[0].matrix, rtol=0, atol=0)


def test_batches_and_their_sizes_make_no_difference_and_the_network_keeps_its_mode(data, network):
    net = ARMED(network, 2, (8,), adversary=None, erasers={"hidden.1": ClusterEraser(8)}).train()
    fit_erasers(net, _batches(*data[0], size=333), num_classes=2)
    matrix = net.erasers[0].matrix.clone()
    fit_erasers(net, _batches(*data[0], size=2000), num_classes=2)
    torch.testing.assert_close(net.erasers[0].matrix, matrix)
    assert net.training and net.network.training


def test_by_default_the_layers_behind_see_the_least_change(data, network):
    train, changes = data[0], []
    for options in ({}, {"keep_label": True}):
        net = ARMED(network, 2, (8,), adversary=None, erasers={"hidden.1": ClusterEraser(8)}).eval()
        fit_erasers(net, _batches(*train), num_classes=2, **options)
        with torch.no_grad():
            latent = net.fixed_and_latent(train[0])[1]
            changes.append(float((net.erasers[0](latent) - latent).square().sum()))
    assert changes[0] < changes[1]


def test_maps_of_images_in_batches_of_monai():
    """The camera is a colour; MONAI's loader, with labels (B, 1) and tensors that carry metadata."""
    torch.manual_seed(0)
    cluster, label = torch.arange(300) % 2, torch.bernoulli(SHARES[torch.arange(300) % 2])
    images = torch.randn(300, 3, 8, 8) + torch.tensor([0.0, 1.0, 0.5]).outer(cluster.float()).T[:, :, None, None]
    images[:, 0, :4] += label[:, None, None]
    rows = [{"image": MetaTensor(x), "label": y[None], "cluster": int(z)} for x, y, z in zip(images, label, cluster)]
    network = CNN((3, 8, 8), channels=(6, 8), dense_channels=5)
    net = ARMED(network, 2, (3, 8, 8), adversary=None, erasers={"blocks.0": ClusterEraser(6)}).eval()
    assert fit_erasers(net, DataLoader(Dataset(rows), batch_size=64), num_classes=2)["blocks.0"] >= 1
    with torch.no_grad():
        maps = network.blocks[0](images)

    def gap(maps, k):
        means = maps.mean((2, 3))
        return (means[(label == k) & (cluster == 0)].mean(0) - means[(label == k) & (cluster == 1)].mean(0)).norm()

    for k in (0, 1):
        assert gap(net.erasers[0](maps), k) < 0.2 * gap(maps, k)


def test_a_label_that_is_continuous_is_regressed_out():
    """Sites differ in age and in the scanner: the scanner goes, age stays."""
    torch.manual_seed(0)
    site = torch.arange(1500) % 3
    age = torch.randn(1500) + torch.tensor([0.0, 1.0, 2.0])[site]
    scanner = torch.tensor([0.0, 2.0, -1.0])[site]
    x = torch.stack([age, scanner], 1) @ torch.randn(2, 6) + 0.3 * torch.randn(1500, 6)
    network = DFNN(6, hidden_channels=())
    network.hidden.append(nn.Identity())  # the table itself is the layer
    net = ARMED(network, 3, (6,), adversary=None, erasers={"hidden.0": ClusterEraser(6)}).eval()

    def r2(features: torch.Tensor, target: torch.Tensor) -> float:
        design = torch.cat([features, torch.ones(len(features), 1)], 1)
        rest = target - design @ torch.linalg.lstsq(design, target[:, None]).solution[:, 0]
        return 1 - float(rest.var() / target.var())

    batches = [{"image": x, "label": age[:, None], "cluster": site}]
    assert fit_erasers(net, batches, num_values=1) == {"hidden.0": 1}
    given_age = (
        scanner
        - torch.stack([age, torch.ones(1500)], 1)
        @ torch.linalg.lstsq(torch.stack([age, torch.ones(1500)], 1), scanner[:, None]).solution[:, 0]
    )
    assert r2(x, age) > 0.95 and r2(x, given_age) > 0.95
    assert r2(net.erasers[0](x), age) > 0.9
    assert r2(net.erasers[0](x), given_age) < 0.15
    fit_erasers(net, batches, num_values=1, within_label=False)
    assert r2(net.erasers[0](x), age) < 0.8  # what the caller is told: marginally, much of age goes


def test_several_factors_and_keys_of_ones_own(data, network):
    x, label, cluster = data[0]
    net = ARMED(network, {"site": 2, "subject": 9}, (8,), adversary=None, erasers={"hidden.1": ClusterEraser(8)})
    batch = {"image": x, "label": label, "site": cluster, "subject": torch.arange(len(x)) % 9}
    assert fit_erasers(net, [batch], num_classes=2)["hidden.1"] >= 1
    matrix = net.erasers[0].matrix.clone()
    prepare = PrepareBatchCluster("table", "diagnosis", ["site", "subject"])
    renamed = {"table": x, "diagnosis": label, "site": cluster, "subject": batch["subject"]}
    fit_erasers(net, [renamed], num_classes=2, prepare_batch=prepare)
    torch.testing.assert_close(net.erasers[0].matrix, matrix)


def test_after_an_error_the_erasers_are_what_they_were(data, network):
    train = data[0]
    erasers = {"hidden.0": ClusterEraser(16), "hidden.1": ClusterEraser(8)}
    net = ARMED(network, 2, (8,), adversary=None, erasers=erasers)
    fit_erasers(net, _batches(*train), num_classes=2)
    before = {name: tensor.clone() for name, tensor in net.erasers.state_dict().items()}
    bad = [{"image": train[0], "label": train[1], "cluster": torch.zeros(2000, dtype=torch.long)}]
    with pytest.raises(ValueError, match="at least two known clusters"):
        fit_erasers(net, bad, num_classes=2)
    for name, tensor in net.erasers.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_what_cannot_be_fitted_is_said(data, network):
    batches = _batches(*data[0])
    with pytest.raises(ValueError, match="no ClusterEraser to fit: build it with ARMED"):
        fit_erasers(ARMED(network, 2, (8,)), batches, num_classes=2)
    with pytest.raises(ValueError, match="no ClusterEraser to fit"):
        fit_erasers(ARMED(network, 2, (8,), erasers={"hidden.1": nn.Identity()}), batches, num_classes=2)
    with pytest.raises(ValueError, match="no ClusterEraser to fit"):
        fit_erasers(network, batches)
    net = ARMED(network, 2, (8,), adversary=None, erasers={"hidden.1": ClusterEraser(8)})
    with pytest.raises(ValueError, match="at least two known clusters"):
        fit_erasers(net, [], num_classes=2)
    with pytest.raises(ValueError, match="label is from 0 to 1: it must be from 0 to 0"):
        fit_erasers(net, batches, num_classes=1)
    net = ARMED(network, 2, (8,), adversary=None, erasers={"hidden.1": ClusterEraser(5)})
    with pytest.raises(ValueError, match=r"erases from 5 features, got \(200, 8\): build ClusterEraser\(8\)"):
        fit_erasers(net, batches, num_classes=2)
