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

import torch
import torch.nn as nn
from monai.networks.blocks import Convolution

__all__ = ["TextureEncoder"]


class TextureEncoder(nn.Module):
    """
    What is small in an image, wherever it lies: strided convolutions, the mean of their maps over the image, and a
    linear layer. In training each batch is turned and mirrored at random, so that the direction of an object says
    nothing.

    Args:
        latent_channels: units of the latent.
        channels: output channels of each convolution, which halves the image.
        in_channels: channels of the image.

    Example:
        >>> TextureEncoder()(torch.rand(2, 1, 64, 64)).shape
        torch.Size([2, 16])
    """

    def __init__(
        self, latent_channels: int = 16, channels: Sequence[int] = (16, 32, 64, 128), in_channels: int = 1
    ) -> None:
        super().__init__()
        self.latent_channels = latent_channels
        self.blocks = nn.Sequential(
            *(
                Convolution(2, below, above, strides=2, act="PRELU", norm="BATCH", adn_ordering="NA", bias=False)
                for below, above in pairwise((in_channels, *channels))
            )
        )
        self.to_latent = nn.Linear(channels[-1], latent_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Latent (B, latent_channels) of square images (B, in_channels, size, size)."""
        if self.training:
            turns, mirrored = torch.randint(4, ()), torch.randint(2, ())
            x = torch.rot90(x.flip(-1) if mirrored else x, int(turns), (-2, -1))
        return self.to_latent(self.blocks(x).mean(dim=(2, 3)))
