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
from monai.networks.nets import AttentionUnet, BasicUNetPlusPlus, DynUNet, MILModel, SegResNetDS, UNet, ViT
from torch import nn

from monai_armed.metrics.audit import collect_features
from monai_armed.networks import ARMED
from monai_armed.networks.layers.dry_run import check_one_output, default_feature_layers, dry_run

IMAGE = (1, 64, 64)


@pytest.mark.parametrize(
    ("network", "sizes"),
    [
        (UNet(2, 1, 2, (4, 8, 16), (2, 2)), [16, 32]),  # none at 64: that is the head itself
        (UNet(2, 1, 2, (4, 8, 16, 16), (2, 2, 2), num_res_units=1), [8, 16, 32, 64]),
        (AttentionUnet(2, 1, 2, (4, 8, 16), (2, 2)), [16, 32, 64]),
    ],
)
def test_layers_between_skip_connections_are_found(network, sizes):
    dry = dry_run(network, IMAGE)
    layers = default_feature_layers(network, dry)
    assert [tuple(dry.record.outputs[name].shape[1:])[1:] for name in layers] == [(size, size) for size in sizes]


def test_the_older_word_for_feature_layers_is_understood():
    with pytest.warns(FutureWarning, match="`taps` has been deprecated"):
        net = ARMED(UNet(2, 1, 2, (4, 8), (2,)), 3, IMAGE, taps=["model.0"])
    assert net.feature_layers == ("model.0",)


def test_a_single_name_is_one_layer():
    net = ARMED(UNet(2, 1, 2, (4, 8), (2,)), 3, IMAGE, feature_layers="model.0")
    assert net.feature_layers == ("model.0",)
    loader = [{"image": torch.zeros(2, *IMAGE), "label": torch.tensor([0, 1]), "cluster": torch.tensor([0, 1])}]
    assert list(collect_features(net, loader, "model.0").layers) == ["model.0"]


def test_inner_layers_of_a_transformer_are_not():
    network = ViT(1, (32, 32), (8, 8), 16, 32, 2, 4, classification=True, num_classes=2, spatial_dims=2)
    assert default_feature_layers(network, dry_run(network, (1, 32, 32))) == ["norm"]


def test_attention_weights_are_no_features():
    """All that MILModel has of a bag of instances goes straight into its last layer."""
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = MILModel(2, "att", pretrained=False, backbone=backbone, backbone_num_features=8)
    net = ARMED(network, 4, (3, 3, 16, 16))
    assert net.feature_layers == ("myfc",) == (net.head,)
    bags = torch.randn(5, 3, 3, 16, 16)
    out = net(bags, torch.arange(5) % 4, with_adversary=False)
    torch.testing.assert_close(network.myfc(out["features"][0]), out["fixed"])
    net(bags, torch.arange(5) % 4)["adversary"].sum().backward()
    assert backbone[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "network",
    [
        DynUNet(2, 1, 2, (3, 3, 3), (1, 2, 2), (2, 2), filters=(4, 8, 8), deep_supervision=True, deep_supr_num=1),
        BasicUNetPlusPlus(2, 1, 2, features=(4, 4, 8, 8, 8, 4), deep_supervision=True),
        SegResNetDS(2, 4, 1, 2, blocks_down=(1, 1, 1), dsdepth=2),
    ],
    ids=lambda network: type(network).__name__,
)
def test_deep_supervision_is_refused_when_wrapping(network):
    with pytest.raises(ValueError, match=r"where one tensor of logits \(2, 2, 64, 64\) is needed.*deep supervision"):
        ARMED(network, 3, IMAGE)


def test_further_outputs_of_another_kind_are_not():
    class WithFeatures(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.head = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
            hidden = self.hidden(x)
            return self.head(hidden), [hidden]

    network = WithFeatures()
    check_one_output(network, dry_run(network, (4,)))


def test_a_network_that_cannot_be_trained_can_be_wrapped():
    class EvaluationAlone(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                raise RuntimeError("weights of another time")
            return super().forward(x)

    net = ARMED(EvaluationAlone(nn.Linear(4, 3), nn.Linear(3, 1)), 2, (4,)).eval()
    assert net(torch.randn(2, 4), torch.tensor([0, 1])).shape == (2, 1)


class _AfterTheHead(nn.Module):
    """Its biases are zero, so that it maps zeros to zeros whatever comes after the last layer."""

    def __init__(self, after):
        super().__init__()
        self.features, self.head, self.after = nn.Linear(6, 4, bias=False), nn.Linear(4, 1, bias=False), after

    def forward(self, x):
        return self.after(lambda view: self.head(self.features(view).relu()), x)


@pytest.mark.parametrize(
    "after",
    [
        lambda logits, x: 3 * logits(x),
        lambda logits, x: logits(x).tanh(),
        lambda logits, x: logits(x) + logits(x.flip(-1)),
        lambda logits, x: logits(x).mul_(3),  # in place: the layer's output is what it was not when it was given
    ],
)
@pytest.mark.parametrize("named", [{}, {"head": "head"}])
def test_what_comes_after_the_last_layer_is_seen_also_where_biases_are_zero(after, named):
    torch.manual_seed(0)  # of four units one must live
    with pytest.raises(ValueError, match=r"gives its output as it is|is not the network's output"):
        ARMED(_AfterTheHead(after), 3, (6,), **named)
    assert ARMED(_AfterTheHead(lambda logits, x: logits(x)), 3, (6,), **named).head == "head"
