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
from monai.networks.layers.utils import get_act_layer

__all__ = ["DFNN"]


class DFNN(nn.Module):
    """
    Dense feedforward network for tables: the base network of S 3.1.1 of https://arxiv.org/abs/2202.11783.

    Args:
        in_channels: number of features.
        out_channels: number of logits.
        hidden_channels: units of the hidden layers; the paper's are (4, 4, 4).
        act: activation after each hidden layer.
        dropout: probability of dropout after each hidden layer.

    Example:
        >>> DFNN(in_channels=37)(torch.rand(8, 37)).shape
        torch.Size([8, 1])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 1,
        hidden_channels: Sequence[int] = (4, 4, 4),
        act: str = "RELU",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in hidden_channels:
            layers.append(nn.Sequential(nn.Linear(in_channels, channels), get_act_layer(act), nn.Dropout(dropout)))
            in_channels = channels
        self.hidden = nn.Sequential(*layers)
        self.head = nn.Linear(in_channels, out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, out_channels) of features (B, in_channels)."""
        return self.head(self.hidden(x))
