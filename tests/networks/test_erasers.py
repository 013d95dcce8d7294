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

"""The place of the erasure: a layer's output is changed for all that comes after it, and not for the random effects."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from monai_armed.losses import ARMEDLoss
from monai_armed.networks import ARMED, CNN, DFNN
from monai_armed.networks.erasure import ClusterEraser


class Drop(nn.Module):
    """Erases one unit, of vectors or maps."""

    def __init__(self, unit: int, width: int) -> None:
        super().__init__()
        keep = torch.ones(width)
        keep[unit] = 0
        self.register_buffer("keep", keep)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features * self.keep.unflatten(0, (-1, *[1] * (features.ndim - 2)))


def _network(layer: str, **options) -> ARMED:
    torch.manual_seed(0)
    net = ARMED(
        DFNN(4, hidden_channels=(6, 5)), 3, (4,), erasers={layer: Drop(1, 6 if layer.endswith("0") else 5)}, **options
    )
    nn.init.normal_(net.random_effects.loc)
    return net


def test_the_fixed_effects_go_without_and_the_random_ones_with_it():
    net, x, cluster = _network("hidden.1").eval(), torch.randn(7, 4), torch.arange(7) % 3
    hidden = net.network.hidden(x)
    erased = hidden.clone()
    erased[:, 1] = 0
    fixed = net.network.head(erased)
    torch.testing.assert_close(net(x, cluster, effects="fixed"), fixed)
    parts = net.random_slopes["cluster"].split(net.random_effects.loc[cluster])
    random = (parts["nonlinear"][..., 0] * hidden).sum(1, keepdim=True) + parts["intercept"].squeeze(-2)
    torch.testing.assert_close(net(x, cluster), fixed + random)
    assert not torch.equal(hidden, erased)
    assert "erasers.0.keep" in net.state_dict() and not net.network.hidden[1]._forward_hooks


def test_it_may_be_any_layer_whose_features_then_have_the_slopes():
    net = _network("hidden.0", feature_layers=["hidden.0"])
    x, cluster = torch.randn(7, 4), torch.arange(7) % 3
    assert net.random_effects.num_effects == 6 + 1
    fixed, latent = net.fixed_and_latent(x)
    hidden = net.network.hidden[0](x)
    torch.testing.assert_close(latent, hidden)
    erased = hidden * torch.tensor([1.0, 0, 1, 1, 1, 1])
    torch.testing.assert_close(fixed, net.network.head(net.network.hidden[1](erased)))
    out = net(x, cluster, with_adversary=False)
    torch.testing.assert_close(out["features"][0], erased)  # the adversary sees what the fixed part has
    loss = ARMEDLoss(torch.nn.BCEWithLogitsLoss())
    loss(net(x, cluster), {"label": torch.ones(7), "cluster": cluster}).backward()
    assert net.network.hidden[0][0].weight.grad.abs().sum() > 0


def test_maps_of_a_classifier_have_slopes_of_their_means_over_space():
    torch.manual_seed(0)
    network = CNN((1, 16, 16), channels=(4, 6), dense_channels=5)
    net = ARMED(network, 3, (1, 16, 16), erasers={"blocks.0": Drop(2, 4)}).eval()
    nn.init.normal_(net.random_effects.loc)
    x, cluster = torch.randn(5, 1, 16, 16), torch.arange(5) % 3
    means = network.blocks[0](x).mean((2, 3))
    parts = net.random_slopes["cluster"].split(net.random_effects.loc[cluster])
    random = (parts["nonlinear"][..., 0] * means).sum(1, keepdim=True) + parts["intercept"].squeeze(-2)
    torch.testing.assert_close(net(x, cluster, effects="random"), random)


def test_several_layers_in_the_order_in_which_they_run():
    torch.manual_seed(0)
    erasers = {"hidden.1": Drop(0, 5), "hidden.0": Drop(1, 6)}
    net = ARMED(DFNN(4, hidden_channels=(6, 5)), 3, (4,), erasers=erasers)
    assert net.erased_layers == ("hidden.0", "hidden.1") and net.random_effects.num_effects == 5 + 1
    assert net.erasers[0] is erasers["hidden.0"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"erasers": {"hidden.9": nn.Identity()}}, "DFNN has no layer 'hidden.9'"),
        ({"erasers": {"hidden.1": nn.Identity()}, "multiplicative": True}, "multiplicative slopes rescale the input"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        ARMED(DFNN(4), 3, (4,), **options)


def test_it_exports():
    net, x = _network("hidden.1").eval(), torch.randn(3, 4)
    torch.testing.assert_close(torch.jit.trace(net, x)(x), net(x))
    exported = torch.export.export(net, (x, torch.tensor([0, 1, -1]))).module()
    torch.testing.assert_close(exported(x, torch.tensor([0, 1, -1])), net(x, torch.tensor([0, 1, -1])))


def test_layers_by_name_alone_get_an_eraser_of_their_size():
    network = CNN((1, 16, 16), channels=(4, 8), dense_channels=5)
    net = ARMED(network, 3, (1, 16, 16), adversary=None, erasers=["dense", "blocks.0"])
    assert net.erased_layers == ("blocks.0", "dense")
    assert [(type(eraser), len(eraser.offset)) for eraser in net.erasers] == [(ClusterEraser, 4), (ClusterEraser, 5)]
    assert ARMED(network, 3, (1, 16, 16), erasers=None).erased_layers == ()
