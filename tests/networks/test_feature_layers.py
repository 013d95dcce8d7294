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

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from wrapped_networks import NETWORKS, set_random, wrapped

from monai_armed.networks import ARMED, DFNN, ClusterInput
from monai_armed.networks.layers.feature_layers import record_layers, temporary_hooks


@pytest.mark.parametrize("name", NETWORKS)
def test_hooks_leave_nothing_behind(name):
    net, x, cluster = wrapped(name)
    hooks = lambda: sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())  # noqa: E731
    before = hooks()
    net(x, cluster)
    with pytest.raises(ValueError):
        net(x, torch.tensor([0, 1, 5, 0]))
    with pytest.raises(Exception):  # noqa: B017 - whatever the network itself says of a wrong shape
        net(x[:, :, :0] if x.ndim > 2 else x[:, :1])
    assert hooks() == before


@pytest.mark.parametrize("name", NETWORKS)
def test_default_feature_layers_can_forget(name):
    """No weights come before a flattened or padded input: an adversary that sees it would always find the cluster."""
    net, x, _ = wrapped(name)
    with record_layers(net.network, outputs=net.feature_layers) as record:
        net.network(x)
    assert list(record.outputs) == list(net.feature_layers) and all(
        out.requires_grad for out in record.outputs.values()
    )


class Overwriting(nn.Module):
    """What comes after the layers ``conv`` and ``dense`` writes into their outputs, or into copies of these."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.conv, self.act, self.pool = nn.Conv2d(1, 4, 3), nn.ReLU(inplace), nn.AdaptiveAvgPool2d(2)
        self.dense, self.drop = nn.Linear(16, 8), nn.Dropout(0.5, inplace)
        self.head, self.inplace = nn.Linear(8, 1), inplace

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.drop(self.dense(self.pool(self.act(self.conv(x))).flatten(1)))
        logits = self.head(hidden)
        if self.inplace:
            hidden.view(-1).tanh_()  # the latent, after the head has seen it, through a view of it
        return logits


@pytest.mark.parametrize("layers", [["conv"], ["dense"], ["conv", "dense"]])
@pytest.mark.parametrize("adversary", ["pooled", "dense"])
def test_a_later_operation_in_place_changes_nothing(layers, adversary):
    """Neither what the adversary sees, nor its gradient, nor the latent that has random slopes."""
    x, cluster = torch.randn(6, 1, 12, 12), torch.arange(6) % 3
    outputs, gradients = [], []
    torch.manual_seed(0)
    weights = Overwriting(False).state_dict()
    for inplace in (False, True):
        network = Overwriting(inplace)
        network.load_state_dict(weights)
        torch.manual_seed(1)
        net = ARMED(network, 3, (1, 12, 12), feature_layers=layers, adversary=adversary, head="head")
        set_random(net)
        outputs.append(net(x, cluster))
        outputs[-1]["adversary"].square().sum().backward()
        gradients.append({n: p.grad for n, p in net.named_parameters() if p.grad is not None})
        outputs.append({"evaluated": net.eval()(x, cluster), "audited": net.fixed_and_latent(x)[1]})
    for plain, overwritten in ((outputs[0], outputs[2]), (outputs[1], outputs[3]), gradients):
        assert plain.keys() == overwritten.keys()
        for name, value in plain.items():
            torch.testing.assert_close(overwritten[name], value, rtol=0, atol=0)


def test_wrapping_moves_neither_random_numbers_nor_the_network():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5, inplace=True), nn.Flatten())
    network.append(nn.Linear(400, 1))
    state, before = torch.get_rng_state(), {n: b.clone() for n, b in network.named_buffers()}
    ARMED(network, 3, (1, 12, 12), adversary=None)
    assert torch.equal(torch.get_rng_state(), state) and network.training
    assert all(torch.equal(b, before[n]) for n, b in network.named_buffers())


def test_what_is_overwritten_after_all_is_said():
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 1))
    with pytest.raises(ValueError, match="the output of layer '0' was overwritten by a later operation in place"):
        with record_layers(network, outputs=["0"]):
            network(torch.randn(2, 3))
    with record_layers(network, outputs=["0"], copied={("output", "0")}) as record:
        network(torch.randn(2, 3))
    assert bool((record.outputs["0"] < 0).any())


def test_hooks_may_change_what_goes_through():
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    x = torch.randn(2, 3)
    with temporary_hooks(network, {"1": lambda given: 2 * given}, {"1": lambda out: out + 1}):
        changed = network(x)
    torch.testing.assert_close(changed, network[1](2 * network[0](x)) + 1)
    assert not network[1]._forward_hooks and not network[1]._forward_pre_hooks


def _together(networks: list, calls: list) -> list:
    """Each call in a thread of its own, all at once, over and over."""
    barrier = threading.Barrier(len(calls))

    def run(network, args: tuple) -> list:
        barrier.wait()
        with torch.no_grad():
            return [network(*args) for _ in range(25)]

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, networks, calls))


@pytest.mark.parametrize("kind", ["armed", "cluster input"])
@pytest.mark.parametrize("replicas", [False, True])
def test_threads_share_a_network(kind, replicas):
    """Replicas, as DataParallel makes them, share the dictionaries of hooks."""
    torch.manual_seed(0)
    base = DFNN(4, hidden_channels=(16, 16))
    net = ARMED(base, 5, (4,)) if kind == "armed" else ClusterInput(base, 5, "hidden.0.0")
    if kind == "armed":
        set_random(net)
    net.eval()
    calls = [(torch.randn(7, 4), torch.randint(5, (7,))) for _ in range(6)]
    with torch.no_grad():
        wanted = [net(*args) for args in calls]
    networks = [_replica(net) for _ in calls] if replicas else [net] * len(calls)
    for found, right in zip(_together(networks, calls), wanted):
        assert all(torch.equal(out, right) for out in found)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def _replica(net: nn.Module) -> nn.Module:
    """A copy as ``torch.nn.parallel.replicate`` makes one, on the same device."""
    copies = {m: m._replicate_for_data_parallel() for m in net.modules()}
    for module, copied in copies.items():
        for name, child in module._modules.items():
            copied._modules[name] = copies.get(child)
        for name, p in module._parameters.items():
            setattr(copied, name, None if p is None else p.detach())
    return copies[net]


def test_training_in_threads_gives_every_thread_its_own_features():
    torch.manual_seed(0)
    net = ARMED(DFNN(4, hidden_channels=(16,)), 5, (4,), random_effects={"posterior_scale": 1e-12}, adversary="dense")
    calls = [(torch.randn(7, 4), torch.randint(5, (7,))) for _ in range(6)]
    with torch.no_grad():
        wanted = [net(*args)["adversary"] for args in calls]
    for found, right in zip(_together([net] * 6, calls), wanted):
        assert all(torch.equal(out["adversary"], right) for out in found)
