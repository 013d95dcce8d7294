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

"""Networks, most of them MONAI's, wrapped by ARMED."""

from __future__ import annotations

import torch
from monai.networks.nets import (
    AttentionUnet,
    AutoEncoder,
    BasicUNet,
    Classifier,
    DenseNet121,
    EfficientNetBN,
    FullyConnectedNet,
    SEResNet50,
    UNet,
    ViT,
    resnet10,
)

from monai_armed.networks import ARMED, CNN, DFNN

IMAGE = (1, 64, 64)
NETWORKS = {
    "DenseNet121": (lambda: DenseNet121(2, 1, 1), IMAGE, {}),
    "ResNet": (lambda: resnet10(spatial_dims=2, n_input_channels=1, num_classes=3), IMAGE, {}),
    "ResNet 3-D": (lambda: resnet10(spatial_dims=3, n_input_channels=1, num_classes=1), (1, 32, 32, 32), {}),
    "ResNet 3-D, conv": (
        lambda: resnet10(spatial_dims=3, n_input_channels=1, num_classes=1),
        (1, 32, 32, 32),
        {"adversary": "conv"},
    ),
    "EfficientNet": (
        lambda: EfficientNetBN("efficientnet-b0", pretrained=False, spatial_dims=2, in_channels=1, num_classes=2),
        IMAGE,
        {},
    ),
    "SEResNet50": (lambda: SEResNet50(spatial_dims=2, in_channels=1, num_classes=2), IMAGE, {"adversary": "conv"}),
    "ViT": (
        lambda: ViT(
            1,
            IMAGE[1:],
            (16, 16),
            48,
            64,
            2,
            4,
            classification=True,
            num_classes=2,
            spatial_dims=2,
            post_activation=None,
        ),
        IMAGE,
        {},
    ),
    "Classifier": (lambda: Classifier(IMAGE, 2, (8, 16), (2, 2)), IMAGE, {"multiplicative": True}),
    "UNet": (lambda: UNet(2, 1, 2, (8, 16, 32), (2, 2), num_res_units=1), IMAGE, {}),
    "UNet, transposed head": (lambda: UNet(2, 1, 2, (8, 16, 32), (2, 2)), IMAGE, {}),
    "AttentionUnet": (lambda: AttentionUnet(2, 1, 2, (8, 16, 32), (2, 2)), IMAGE, {}),
    "BasicUNet": (lambda: BasicUNet(2, 1, 2, features=(8, 8, 16, 16, 32, 8)), IMAGE, {"multiplicative": True}),
    "AutoEncoder": (lambda: AutoEncoder(2, 1, 1, (8, 16), (2, 2)), IMAGE, {}),
    "CNN": (lambda: CNN(IMAGE, channels=(8, 8, 16, 16), dense_channels=32), IMAGE, {"adversary": "conv"}),
    "DFNN": (lambda: DFNN(4), (4,), {"adversary": "dense", "linear_slopes": True}),
    "FullyConnectedNet": (lambda: FullyConnectedNet(4, 1, (8, 8)), (4,), {"adversary": "dense"}),
}


def wrapped(name: str, **kwargs) -> tuple[ARMED, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    make, shape, options = NETWORKS[name]
    net = ARMED(make(), 5, shape, **{**options, **kwargs})
    return net, torch.randn(4, *shape), torch.tensor([0, 1, 4, -1])


def set_random(net: ARMED) -> ARMED:
    with torch.no_grad():
        net.random_effects.loc.normal_()
    return net
