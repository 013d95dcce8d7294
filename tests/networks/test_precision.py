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

"""Networks in double and in half precision, with every adversary."""

from __future__ import annotations

import copy

import pytest
import torch
from wrapped_networks import set_random

from monai_armed.losses import ARMEDLoss
from monai_armed.networks import ARMED, CNN, ClusterInput, adapt
from monai_armed.networks.nets import AEC, ARMEDAEC

IMAGE = (1, 16, 16)
KINDS = {
    "pooled": {},
    "whitened": {"adversary": "whitened", "num_classes": 2},
    "conv": {"adversary": "conv", "confusion": True, "multiplicative": True},
    "dense": {"adversary": "dense", "random_effects": {"covariance": "full", "learn_prior": True}},
}


def _batch(dtype: torch.dtype) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    x = torch.randn(6, *IMAGE, generator=torch.Generator().manual_seed(0)).to(dtype)
    return x, {"label": torch.arange(6) % 2, "cluster": torch.tensor([0, 1, 2, 0, 1, -1])}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_and_a_prediction(dtype, when, kind):
    torch.manual_seed(0)
    network = CNN(IMAGE, channels=(4, 8), dense_channels=8)
    if when == "before":
        network = network.to(dtype)
    net = ARMED(network, 3, IMAGE, **KINDS[kind])
    net = net if when == "before" else net.to(dtype)
    assert {p.dtype for p in net.parameters()} == {dtype}
    x, target = _batch(dtype)
    for _ in range(2):
        loss = ARMEDLoss(torch.nn.BCEWithLogitsLoss())(net(x, target["cluster"]), target)
        loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)
    set_random(net).eval()
    assert net(x, target["cluster"]).dtype == dtype
    assert net.sample_logits(x, target["cluster"], 3).isfinite().all()
    adapted = adapt(net, x, torch.ones(6), torch.nn.BCEWithLogitsLoss(), steps=5)
    assert adapted(x, torch.full((6,), 3)).dtype == dtype


def test_double_precision_gives_the_same_numbers():
    torch.manual_seed(0)
    net = ARMED(CNN(IMAGE, channels=(4, 8), dense_channels=8), 3, IMAGE, random_effects={"posterior_scale": 1e-12})
    set_random(net)
    twice = copy.deepcopy(net).double()
    (x, target), (y, _) = _batch(torch.float32), _batch(torch.float64)
    out, exact = net(x, target["cluster"]), twice(y, target["cluster"])
    for name, value in exact.items():
        torch.testing.assert_close(out[name].double(), value, rtol=1e-3, atol=1e-4)


def test_the_running_statistics_of_a_whitened_adversary_stay_at_least_single():
    net = ARMED(CNN(IMAGE, channels=(4,), dense_channels=4), 3, IMAGE, adversary="whitened")
    statistics = net.adversary.classifier
    assert net.bfloat16() and statistics.covariance.dtype == statistics.mean.dtype == torch.float32
    assert net.double() and statistics.covariance.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_other_networks(dtype):
    x, target = _batch(dtype)
    joined = ClusterInput(CNN(IMAGE, channels=(4,), dense_channels=4).to(dtype), 3, "head")
    assert joined(x, target["cluster"]).dtype == dtype
    small = {"channels": (4, 4), "latent_channels": 8, "classifier_channels": 4}
    fixed, random = AEC(IMAGE, **small), AEC(IMAGE, norm=("recon", {"num_clusters": 3}), **small)
    classifier = CNN(IMAGE, 3, (4,), 4)
    net = ARMEDAEC(fixed.to(dtype), 3, IMAGE, random.to(dtype), image_classifier=classifier.to(dtype))
    out = net(x, target["cluster"])
    assert out["mixed_reconstruction"].dtype == dtype and all(value.isfinite().all() for value in out.values())
