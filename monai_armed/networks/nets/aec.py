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

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn as nn
import torch.nn.functional as F
from monai.networks.blocks import ADN, Convolution
from torch.nn.utils import skip_init

__all__ = ["AEC"]

INNER = (..., slice(1, 3), slice(1, 3))  # of a 4 x 4 kernel what reaches a map of 2 x 2; the rest meets padding


class _ToOnePosition(nn.Conv2d):
    """The convolution of a block whose map is 2 x 2, without the part of its kernel that meets nothing but padding."""

    @classmethod
    def of(cls, conv: nn.Conv2d) -> _ToOnePosition:
        """The same convolution with the same weights."""
        made = skip_init(cls, conv.in_channels, conv.out_channels, kernel_size=4, stride=2, padding=1)
        made.weight, made.bias = conv.weight, conv.bias
        return made

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight[INNER], self.bias)


class AEC(nn.Module):
    """
    Autoencoder-classifier (S 3.1.3, Fig. S4 of https://arxiv.org/abs/2202.11783): blocks of a 4 x 4 convolution with
    2 x 2 stride, normalisation and PReLU compress an image into a latent vector, transposed convolutions reconstruct
    it, and a hidden layer of an auxiliary classifier predicts the phenotype from the latent. The decoder uses the
    encoder's weights, transposed, so that what an adversary does to the encoder is done to the decoder.

    Args:
        in_shape: shape of one image, (channels, size, size); the size is a multiple of 2 ** len(channels).
        out_channels: number of logits of the classifier; 0 for an autoencoder without one.
        channels: output channels of each block; the paper has 6 blocks.
        latent_channels: units of the latent.
        classifier_channels: units of the classifier's hidden layer.
        norm: normalisation of the blocks, such as ``"batch"``, or ``("recon", {"num_clusters": 13})`` for the
            autoencoder of random effects.

    Raises:
        ValueError: when the images are not square or the size is no such multiple.

    Example:
        >>> net = AEC(in_shape=(1, 64, 64))
        >>> reconstruction, logits = net(torch.rand(2, 1, 64, 64))
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_channels: int = 1,
        channels: Sequence[int] = (64, 64, 64, 128, 256, 512),
        latent_channels: int = 56,
        classifier_channels: int = 32,
        norm: str | tuple = "batch",
    ) -> None:
        super().__init__()
        in_channels, *size = in_shape
        step = 2 ** len(channels)
        if len(size) != 2 or size[0] != size[1] or size[0] % step or not size[0]:
            raise ValueError(
                f"in_shape must be (channels, size, size) with a multiple of {step}, as {len(channels)} blocks halve "
                f"it that often, got {tuple(in_shape)}: resize or pad the images."
            )
        self.latent_channels, self.out_channels = latent_channels, out_channels
        self.map_shape = (channels[-1], size[0] // step, size[0] // step)
        widths = [in_channels, *channels]
        self.encoder = nn.ModuleList(
            Convolution(2, below, above, strides=2, kernel_size=4, padding=1, norm=norm, act="PRELU", adn_ordering="NA")
            for below, above in pairwise(widths)
        )
        if size[0] == step:
            self.encoder[-1].conv = _ToOnePosition.of(cast(nn.Conv2d, self.encoder[-1].conv))
        self.to_latent = nn.Linear(torch.Size(self.map_shape).numel(), latent_channels)
        self.decoder = nn.ModuleList(
            ADN("NA", in_channels=width, norm=norm, norm_dim=2, act="PRELU") for width in reversed(channels)
        )
        # biases of the transposed layers: of the dense one, and of each transposed convolution from the inside out
        self.map_bias = nn.Parameter(torch.zeros(self.map_shape))
        self.biases = nn.ParameterList(torch.zeros(width) for width in reversed(widths[:-1]))
        self.classifier = None
        if out_channels:
            self.classifier = nn.Sequential(
                nn.Linear(latent_channels, classifier_channels),
                nn.PReLU(),
                nn.Linear(classifier_channels, out_channels),
            )

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Latent (B, latent_channels) of images (B, *in_shape)."""
        out = x
        for block in self.encoder:
            out = block(out)
        return self.to_latent(out.flatten(1))

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Images (B, *in_shape) from the latent (B, latent_channels)."""
        out = F.linear(latent, self.to_latent.weight.T).unflatten(1, self.map_shape) + self.map_bias
        for block, conv, bias in zip(self.decoder, reversed(self.encoder), self.biases):
            weight = conv.get_parameter("conv.weight")
            if out.shape[2:] == (1, 1):
                out = F.conv_transpose2d(block(out), weight[INNER], bias)
            else:
                out = F.conv_transpose2d(block(out), weight, bias, stride=2, padding=1)
        return out

    def classify(self, latent: torch.Tensor) -> torch.Tensor:
        """Logits (B, out_channels) from the latent (B, latent_channels).

        Raises:
            ValueError: when there is no classifier.
        """
        if self.classifier is None:
            raise ValueError("this autoencoder has no classifier: build it with out_channels of at least 1.")
        return self.classifier(latent)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Reconstruction (B, *in_shape) and logits (B, out_channels), None without classifier, of images."""
        latent = self.encode(x)
        return self.decode(latent), None if self.classifier is None else self.classify(latent)
