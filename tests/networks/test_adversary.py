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

import warnings

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from wrapped_networks import wrapped

from monai_armed.networks import ARMED
from monai_armed.networks.layers.feature_layers import record_layers


def test_single_pass_reversal_equals_two_explicit_losses():
    net, x, cluster = wrapped("CNN")
    x, cluster = x[:3], cluster[:3]
    cce = torch.nn.functional.cross_entropy
    cce(net(x, cluster)["adversary"], cluster).backward()
    single = {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    trunk, adversary = list(net.network.parameters()), list(net.adversary.parameters())
    with record_layers(net.network, outputs=net.feature_layers) as record:
        net.network(x)
    loss = cce(net.adversary.logits([record.outputs[n] for n in net.feature_layers]), cluster)
    explicit_trunk = torch.autograd.grad(-loss, trunk, retain_graph=True, allow_unused=True)
    explicit_adversary = torch.autograd.grad(loss, adversary)
    for (n, _), g in zip(net.network.named_parameters(), explicit_trunk):
        if g is not None:
            torch.testing.assert_close(single["network." + n], g, msg=n)
    for (n, _), g in zip(net.adversary.named_parameters(), explicit_adversary):
        torch.testing.assert_close(single["adversary." + n], g, msg=n)


@pytest.mark.parametrize("confusion", [False, True])
def test_reversal_strength_scales_only_the_features(confusion):
    net, x, cluster = wrapped("DFNN", confusion=confusion)
    grads = []
    for strength in (1.0, 0.25):
        net.zero_grad()
        net.set_reversal_strength(strength)
        outputs = net(x, cluster)
        sum(outputs[name].pow(2).sum() for name in ("adversary", "confusion") if name in outputs).backward()
        grads.append(
            [net.network.hidden[0][0].weight.grad.clone(), net.adversary.classifier.layers[0].weight.grad.clone()]
        )
    torch.testing.assert_close(grads[1][0], 0.25 * grads[0][0])
    torch.testing.assert_close(grads[1][1], grads[0][1])


def test_confusion_trains_features_and_adversary_apart():
    net, x, cluster = wrapped("DFNN", confusion=True)
    out = net(x, cluster)
    torch.testing.assert_close(out["confusion"], out["adversary"])
    out["adversary"].pow(2).sum().backward(retain_graph=True)
    assert (
        net.network.hidden[0][0].weight.grad is None and net.adversary.classifier.layers[0].weight.grad.abs().sum() > 0
    )
    net.zero_grad()
    out["confusion"].pow(2).sum().backward()
    assert (
        net.network.hidden[0][0].weight.grad.abs().sum() > 0 and net.adversary.classifier.layers[0].weight.grad is None
    )


def test_class_conditional_adversary():
    net, x, cluster = wrapped("DFNN", num_classes=2)
    assert net(x, cluster)["adversary"].shape == (4, 5, 2)


class _Trunk(nn.Module):
    def __init__(self, run):
        super().__init__()
        self.first, self.trunk, self.head = nn.Linear(6, 8), nn.Sequential(nn.Linear(8, 4), nn.ReLU()), nn.Linear(4, 1)
        self.run = run

    def forward(self, x):
        return self.head(self.run(self.trunk, self.first(x)))


def _without_gradient(trunk, x):
    with torch.no_grad():
        return trunk(x)


@pytest.mark.parametrize(
    ("run", "warns"),
    [
        (lambda trunk, x: trunk(x), False),
        (lambda trunk, x: checkpoint(trunk, x, use_reentrant=False), False),
        (lambda trunk, x: checkpoint(trunk, x, use_reentrant=True), True),  # the adversary's gradient would be lost
        (_without_gradient, True),
    ],
)
def test_features_that_no_gradient_reaches_are_named(run, warns):
    net = ARMED(_Trunk(run), 3, (6,), feature_layers=["first", "trunk.0"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        net(torch.rand(4, 6), torch.arange(4) % 3)
        with torch.no_grad():
            net(torch.rand(4, 6), torch.arange(4) % 3)
    told = [str(w.message) for w in caught if "cannot forget the cluster" in str(w.message)]
    assert len(told) == warns and all("['trunk.0']" in message for message in told)
