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

"""The affine map that takes out of features what tells the clusters."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["ClusterEraser", "fold_eraser"]


class ClusterEraser(nn.Module):
    """
    Affine map of a layer's features, channel by channel, x E + b. It starts as the identity;
    :py:func:`monai_armed.networks.erasure.fit_eraser` makes one that erases the clusters, and ``load_state_dict``
    puts that one into this one's place. It has buffers and no parameters: gradients pass through it, and no optimizer
    undoes it.

    Args:
        num_features: number of channels D.
        channel_dim: dimension of the channels, such as -1 of tokens (B, T, D). None: 1, as of maps, unless a network
            tells it what its layer has, as :py:class:`monai_armed.networks.nets.ARMED` does.

    Raises:
        ValueError: when ``num_features`` is not positive, or ``channel_dim`` is that of the batch.

    Example:
        >>> eraser = ClusterEraser(32)
        >>> eraser(torch.rand(2, 32, 8, 8)).shape
        torch.Size([2, 32, 8, 8])
    """

    matrix: torch.Tensor
    offset: torch.Tensor
    rank: torch.Tensor

    def __init__(self, num_features: int, channel_dim: int | None = None) -> None:
        super().__init__()
        if num_features < 1:
            raise ValueError(f"num_features must be at least 1, got {num_features}.")
        if channel_dim == 0:
            raise ValueError("channel_dim must not be 0, which is the batch.")
        self.channel_dim = channel_dim
        self.register_buffer("matrix", torch.eye(num_features))
        self.register_buffer("offset", torch.zeros(num_features))
        self.register_buffer("rank", torch.tensor(0))  # how many directions are erased

    def reset_parameters(self) -> None:
        """Erase nothing, as at the start."""
        torch.nn.init.eye_(self.matrix)
        self.offset.zero_()
        self.rank.zero_()

    def extra_repr(self) -> str:
        return f"{len(self.offset)}, rank={int(self.rank)}"

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """
        Args:
            features: (B, D), maps (B, D, *spatial) or, with their ``channel_dim``, tokens (B, T, D).

        Returns:
            of the same shape and type.

        Raises:
            ValueError: when there is another number of features.
        """
        dim = (1 if self.channel_dim is None else self.channel_dim) % features.ndim
        if not torch.jit.is_tracing() and features.shape[dim] != len(self.offset):
            raise ValueError(
                f"the eraser erases from {len(self.offset)} features, got {tuple(features.shape)}: build "
                f"ClusterEraser({features.shape[dim]}) for this layer."
            )
        with torch.autocast(features.device.type, enabled=False):  # in half precision some of the clusters would stay
            last = features.ndim - 1  # not -1, which the older export to ONNX writes down as it is
            channels_last = features.movedim(dim, last).to(self.matrix.dtype)
            erased = (channels_last @ self.matrix + self.offset).movedim(last, dim)
        return erased.to(features.dtype)


@torch.no_grad()
def fold_eraser(layer: nn.Linear, eraser: ClusterEraser) -> None:
    """
    Make an eraser part of the linear layer whose outputs it erases from: nothing is added to the network.

    Args:
        layer: the layer, changed in place; it gets a bias if it has none.
        eraser: fitted to the layer's outputs.
    """
    matrix, bias = eraser.matrix.cpu().double(), eraser.offset.cpu().double()  # not all devices have double
    if layer.bias is None:
        layer.bias = nn.Parameter(torch.zeros_like(layer.weight[:, 0]))
    layer.bias.copy_(layer.bias.cpu().double() @ matrix + bias)
    layer.weight.copy_(matrix.T @ layer.weight.cpu().double())
