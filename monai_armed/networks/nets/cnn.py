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

import torch
import torch.nn as nn
from monai.networks.blocks import Convolution
from monai.networks.layers.factories import Pool

__all__ = ["CNN"]


class CNN(nn.Module):
    """
    Convolutional classifier of S 3.1.2, Fig. S3 of https://arxiv.org/abs/2202.11783: blocks of a 3 x 3 convolution,
    batch normalisation and PReLU with max-pooling between them, a dense hidden layer, and the output layer.

    Args:
        in_shape: shape of one image, (channels, *spatial).
        out_channels: number of logits.
        channels: output channels of each block; the paper has 7 blocks.
        dense_channels: units of the dense hidden layer, the latent h_F.
        dropout: dropout probability after each block, one number or one a block.

    Raises:
        ValueError: when the image is too small for the number of blocks, or ``dropout`` has another length or is no
            probability.

    Example:
        >>> CNN(in_shape=(1, 192, 192))(torch.rand(2, 1, 192, 192)).shape
        torch.Size([2, 1])
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_channels: int = 1,
        channels: Sequence[int] = (64, 128, 128, 256, 256, 512, 512),
        dense_channels: int = 512,
        dropout: float | Sequence[float] = 0.0,
    ) -> None:
        super().__init__()
        in_channels, *size = in_shape
        spatial_dims = len(size)
        final_size = [s // 2 ** (len(channels) - 1) for s in size]
        if min(final_size) < 1:
            raise ValueError(f"images of {tuple(size)} are too small for {len(channels)} blocks with pooling between.")
        rates = [dropout] * len(channels) if isinstance(dropout, (int, float)) else list(dropout)
        if len(rates) != len(channels):
            raise ValueError(f"dropout must be one number or one for each of {len(channels)} blocks, got {dropout}.")
        if not all(0 <= rate <= 1 for rate in rates):
            raise ValueError(f"dropout must be a probability, 0 to 1, got {dropout}.")
        blocks = []
        for i, (width, rate) in enumerate(zip(channels, rates)):
            block = Convolution(
                spatial_dims,
                in_channels,
                width,
                act="PRELU",
                norm="BATCH",
                dropout=rate,
                adn_ordering="NAD",
                bias=False,
            )
            pool = Pool[Pool.MAX, spatial_dims](2) if i else nn.Identity()
            blocks.append(nn.Sequential(pool, block))
            in_channels = width
        self.blocks = nn.Sequential(*blocks)
        self.flatten = nn.Flatten()
        flat = in_channels * torch.Size(final_size).numel()
        self.dense = nn.Sequential(nn.Linear(flat, dense_channels), nn.PReLU())
        self.head = nn.Linear(dense_channels, out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, out_channels) of images (B, *in_shape)."""
        return self.head(self.dense(self.flatten(self.blocks(x))))
