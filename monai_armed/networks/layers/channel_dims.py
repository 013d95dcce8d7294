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

"""Which dimension of a layer's features has the channels: maps are (B, C, *spatial), tokens (B, T, C)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.nn as nn

from .dry_run import DryRun

__all__ = ["channel_dims", "channels_first", "check_rows", "pooled", "sequence_dim"]

Norms = nn.modules.batchnorm._NormBase  # of batch and instance
POOLINGS = ("_MaxPoolNd", "_AvgPoolNd", "_AdaptiveMaxPoolNd", "_AdaptiveAvgPoolNd")
FIRST = (nn.modules.conv._ConvNd, Norms, nn.GroupNorm, *(getattr(nn.modules.pooling, name) for name in POOLINGS))
LAST = (nn.Linear, nn.RNNBase, nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
NORMS_OF_A_SHAPE = (nn.LayerNorm, nn.RMSNorm)


def channels_first(features: torch.Tensor, dim: int) -> torch.Tensor:
    """Features (B, C, ...) of those whose channels are in dimension ``dim``."""
    return features if dim % features.ndim == 1 else features.movedim(dim % features.ndim, 1)


def pooled(features: torch.Tensor, dim: int) -> torch.Tensor:
    """Vectors (B, D) as they are; of maps or tokens, with channels in dimension ``dim``, their means and then s.d."""
    if features.ndim < 3:
        return features.reshape(len(features), -1)
    maps = channels_first(features, dim).flatten(2)
    return torch.cat([maps.mean(-1), maps.std(-1, correction=0)], dim=1)


def check_rows(features: torch.Tensor, samples: int, layer: str) -> None:
    """
    Raises:
        ValueError: when a layer gives another number of rows than there are samples.
    """
    if not features.ndim or len(features) != samples:
        raise ValueError(
            f"layer {layer!r} gives {tuple(features.shape)} for {samples} samples: it runs once for each instance, "
            "window or time step of a sample, or has the batch elsewhere, so name a layer that gives one row for each "
            "sample, such as one behind that which joins them."
        )


def channel_dims(network: nn.Module, dry: DryRun, tensors: Iterable[tuple[str, torch.Tensor]]) -> list[int | None]:
    """
    The dimensions that have the channels. A layer that makes or takes the very tensor tells: convolutions, pooling and
    batch norms have them first, linear and recurrent layers, attention and layer norms last; activations and dropout
    leave them where they are; a block has them where the last of its layers with an output of that shape does. Where no
    layer tells, features of as many dimensions as the images are maps, and those with three of an image are tokens.

    Args:
        network, dry: the network and its dry run.
        tensors: recorded in the dry run; with each the name of the layer that gave it, or "".

    Returns:
        the dimension, counted from 0; None where it cannot be told, as of (B, C, L) or (B, T, C) of a sequence.
    """
    known = _Known(network, dry)
    return [known.dim(tensor, name) for name, tensor in tensors]


def _kind(layer: nn.Module) -> str | None:
    if isinstance(layer, FIRST):
        return "first"
    of_last = isinstance(layer, NORMS_OF_A_SHAPE) and len(layer.normalized_shape) == 1
    return "last" if of_last or isinstance(layer, LAST) else None


def sequence_dim(layer: nn.Module) -> int:
    """Where a layer, not seen to run, has the channels of features with three dimensions: as the last layer in it."""
    kinds = [kind for part in layer.modules() if (kind := _kind(part)) is not None]
    return 2 if kinds and kinds[-1] == "last" else 1


class _Known:
    """What the layers of a dry run say of the tensors that they made and took."""

    def __init__(self, network: nn.Module, dry: DryRun) -> None:
        self.dry = dry
        self.told: dict[int, set[str]] = {}  # by the tensor's id
        self.alike: dict[int, set[int]] = {}
        for name, layer in network.named_modules():
            taken, made = dry.record.inputs.get(name), dry.record.outputs.get(name)
            kind, leaf = _kind(layer), next(layer.children(), None) is None
            for tensor in (taken, made):
                if kind is not None and tensor is not None:
                    self.told.setdefault(id(tensor), set()).add(kind)
            if kind is None and leaf and taken is not None and made is not None and taken.shape == made.shape:
                self.alike.setdefault(id(taken), set()).add(id(made))
                self.alike.setdefault(id(made), set()).add(id(taken))

    def _kinds(self, tensor: torch.Tensor) -> set[str]:
        seen: set[int] = set()
        ahead = [id(tensor)]
        while ahead:
            seen.add(found := ahead.pop())
            ahead += self.alike.get(found, set()) - seen
        return set().union(*(self.told.get(found, set()) for found in seen))

    def dim(self, tensor: torch.Tensor, name: str) -> int | None:
        if tensor.ndim < 3:
            return tensor.ndim - 1
        given, kinds, is_sure = self.dry.input.ndim, self._kinds(tensor), True
        if not kinds and name:
            kinds = next((found for out in self._inside(name, tensor) if (found := self._kinds(out))), set())
            is_sure = kinds != {"last"} or tensor.shape[1] != tensor.shape[-1]  # transposed it would look the same
        if kinds and is_sure:
            return None if len(kinds) > 1 else 1 if kinds == {"first"} else tensor.ndim - 1
        if tensor.ndim == given > 3 and is_sure:
            return 1
        return 2 if tensor.ndim == 3 < given else None

    def _inside(self, name: str, tensor: torch.Tensor) -> Iterator[torch.Tensor]:
        """What layers inside a block give in its shape, the last one first."""
        for inner, out in reversed(self.dry.record.outputs.items()):
            if inner.startswith(f"{name}.") and out.shape == tensor.shape:
                yield out
