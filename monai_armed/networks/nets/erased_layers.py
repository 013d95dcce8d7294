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

"""The layers of a network that are erased: where their features have the channels, and what of them goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn as nn

from ..erasure.eraser import ClusterEraser
from ..layers.channel_dims import channel_dims, channels_first
from ..layers.dry_run import DryRun, left_as_it_was
from ..layers.feature_layers import first_tensor, record_layers

__all__ = ["Places", "prepare_erasers", "tokens_read"]


@dataclass(frozen=True)
class Places:
    """
    Takes from a layer's features those that the network goes on with, channels first.

    Args:
        dim: dimension of the channels.
        tokens: which tokens go on, such as the class token alone behind a transformer's last block; None: all.
    """

    dim: int = 1
    tokens: tuple[int, ...] | None = None

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """Features (B, C, ...)."""
        features = channels_first(features, self.dim)
        return features if self.tokens is None else features[:, :, list(self.tokens)]


def prepare_erasers(
    network: nn.Module, dry: DryRun, names: Sequence[str], erasers: Mapping[str, nn.Module] | Sequence[str]
) -> tuple[dict[str, nn.Module], dict[str, Places]]:
    """
    Modules that erase from the layers, of which a :py:class:`ClusterEraser` is told where the channels are.

    Args:
        network, dry: the network and its dry run.
        names: the layers' names.
        erasers: modules by name, or names, each of which gets a :py:class:`ClusterEraser`.

    Returns:
        modules, and which features they act on, by the layers' names in the order in which they run.

    Raises:
        ValueError: when a layer's channels cannot be told, or its features go no further.
    """
    modules: dict[str, nn.Module] = {}
    places: dict[str, Places] = {}
    names = [name for name in dry.record.outputs if name in names]
    found = channel_dims(network, dry, [(name, dry.record.outputs[name]) for name in names])
    for name, dim in zip(names, found):
        given = erasers[name] if isinstance(erasers, Mapping) else None
        features = dry.record.outputs[name]
        if isinstance(given, ClusterEraser) and given.channel_dim is not None:
            dim = given.channel_dim % features.ndim
        elif dim is None and (given is None or isinstance(given, ClusterEraser)):
            raise ValueError(
                f"layer {name!r} gives (B, {', '.join(map(str, features.shape[1:]))}), and which of these are its "
                f"channels cannot be told: say it by erasers={{{name!r}: ClusterEraser(num_features, channel_dim=1)}}, "
                "or channel_dim=-1."
            )
        dim = 1 if dim is None else dim
        given = ClusterEraser(features.shape[dim]) if given is None else given
        if isinstance(given, ClusterEraser):
            given.channel_dim = dim
        are_tokens = features.ndim == 3 and dim == 2
        modules[name], places[name] = given, Places(dim, tokens_read(network, dry.input, name) if are_tokens else None)
    return modules, places


def tokens_read(
    network: nn.Module, samples: torch.Tensor, layer: str, part: nn.Module | None = None
) -> tuple[int, ...] | None:
    """
    The tokens of a layer on which the logits depend, by their gradient at noise.

    Args:
        network: called with noise like ``samples``.
        layer: name of a layer that gives (B, T, C), of the network or of a ``part`` of it.

    Returns:
        their places; None where that is all of them or not told.

    Raises:
        ValueError: when the logits depend on none.
    """
    kept: list[torch.Tensor] = []

    def cut(features: torch.Tensor) -> torch.Tensor:
        kept.append(features.detach().requires_grad_())
        return kept[-1].clone()  # for operations in place

    x = torch.rand(samples.shape, generator=torch.Generator().manual_seed(0)).to(samples)
    watched = network if part is None else part
    with left_as_it_was(network, x.device), torch.inference_mode(False), torch.enable_grad():
        for module in network.modules():  # an exported program has no eval()
            module.training = False
        with record_layers(watched, changes={layer: cut}), torch.backends.cudnn.flags(enabled=False):
            logits = first_tensor(network(x))
        gradient = None
        if logits.requires_grad:
            (gradient,) = torch.autograd.grad(logits.square().sum(), kept[-1], allow_unused=True)
    if gradient is None:
        raise ValueError(
            f"the logits do not depend on what layer {layer!r} gives (of several outputs on the first), so that "
            "erasing from it would do nothing: name a layer whose output goes on."
        )
    read = gradient.abs().amax(dim=(0, 2)).nonzero().flatten().tolist()
    return tuple(read) if 0 < len(read) < gradient.shape[1] else None
