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

"""Erasure as a part of a training: what its model forgets and gives back, and what several processes make of it."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from monai_armed.bundle import Erasure
from monai_armed.networks import ARMED, DFNN
from monai_armed.networks.erasure import ClusterEraser

NUMBER, CLUSTERS = 900, 3


def samples() -> list[dict]:
    """The label shows in the first column within a cluster; the second names the cluster, which tells the label too."""
    torch.manual_seed(0)
    cluster = torch.arange(NUMBER) % CLUSTERS
    label = (torch.rand(NUMBER) < torch.tensor([0.2, 0.5, 0.8])[cluster]).float()
    x = torch.randn(NUMBER, 4)
    x[:, 0] += 2 * label
    x[:, 1] += 3 * cluster
    return [{"image": x[i], "label": label[i : i + 1], "cluster": int(cluster[i])} for i in range(NUMBER)]


def trained(erased: bool = True) -> ARMED:
    """A network that reads both."""
    torch.manual_seed(0)
    base = DFNN(4, hidden_channels=(8,))
    data = samples()
    x, label = torch.stack([row["image"] for row in data]), torch.stack([row["label"] for row in data])
    optimizer = torch.optim.Adam(base.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(base(x), label).backward()
        optimizer.step()
    options = {"erasers": {"hidden.0": ClusterEraser(8)}} if erased else {}
    return ARMED(base, CLUSTERS, (4,), adversary=None, random_effects={"learn_prior": True}, **options)


def spread(net: ARMED) -> float:
    """Differences of the fixed logit between clusters among samples of class 0."""
    data = [row for row in samples() if row["label"] == 0]
    with torch.no_grad():
        logit = net.eval()(torch.stack([row["image"] for row in data])).squeeze(1)
    cluster = torch.tensor([row["cluster"] for row in data])
    return float(torch.stack([logit[cluster == c].mean() for c in range(CLUSTERS)]).std())


def test_fixed_effects_forget_the_cluster_and_mixed_ones_have_it(capsys):
    net, data = trained(), samples()
    before = spread(net)
    Erasure(data, nn.BCEWithLogitsLoss(), num_classes=2)(net)
    assert before > 0.5 and spread(net) < 0.1 * before
    assert re.search(r"directions by layer: [23] from 'hidden.0'", capsys.readouterr().out)
    x, cluster = torch.stack([row["image"] for row in data]), torch.tensor([row["cluster"] for row in data])
    label = torch.stack([row["label"] for row in data])
    with torch.no_grad():
        mixed, fixed = (nn.functional.binary_cross_entropy_with_logits(net(x, c), label) for c in (cluster, None))
    assert float(mixed) < float(fixed) - 0.05


def test_a_network_without_erasers_is_refused():
    with pytest.raises(ValueError, match="the network has no ClusterEraser to fit"):
        Erasure(samples(), nn.BCEWithLogitsLoss(), num_classes=2)(trained(erased=False))
