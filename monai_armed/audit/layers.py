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
"""Which layers of a network an audit looks at, and which dimension of theirs has the channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..networks.layers.dry_run import DryRun, default_feature_layers, dry_run

__all__ = ["usual_layers"]

LAST = ("Linear", "LayerNorm", "RMSNorm")  # layers of PyTorch whose channels are the last dimension


def _are_tokens(output: torch.Tensor, spatial_dims: int) -> bool:
    """Whether a layer's output is (B, T, C), as in a transformer of images."""
    return output.ndim == 3 and spatial_dims > 1


def usual_layers(network: torch.nn.Module, input_shape: Sequence[int]) -> list[str]:
    """
    What ARMED's adversary sees; of an exported program, whose layers have lost their types, the last map of each size,
    the last tokens of each width, and all vectors. What is inside a block that gives tokens, such as attention weights,
    is not among them, nor are maps with channels last.

    Args:
        network: the network.
        input_shape: of one image.

    Returns:
        names; none where there is nothing between input and output.
    """
    dry = dry_run(network, input_shape)
    if not isinstance(network, torch.export.UnflattenedModule):
        try:
            return default_feature_layers(network, dry)
        except ValueError:
            return []
    ndim, outputs = dry.input.ndim, dry.record.outputs
    blocks = tuple(f"{name}." for name, output in outputs.items() if _are_tokens(output, ndim - 2))
    channels_last = _channels_last(network, dry)
    last: dict[tuple, str] = {}
    for name, output in outputs.items():
        shape = tuple(output.shape)
        if shape == tuple(dry.output.shape) or name.startswith(blocks) or len(output) != len(dry.output):
            continue
        if output.ndim == 2:
            last[name,] = name
        elif _are_tokens(output, ndim - 2):
            last["tokens", shape[2]] = name
        elif output.ndim == ndim and shape not in channels_last:
            last[shape[2:]] = name
    return [name for name in outputs if name in last.values()]


def _channels_last(network: torch.nn.Module, dry: DryRun) -> set[tuple[int, ...]]:
    """Shapes of maps that linear layers and layer norms give, whose channels are the last dimension."""
    layers = dict(network.named_modules())
    shapes = set()
    for name, output in dry.record.outputs.items():
        kind = str(getattr(layers[name], "_ty", "")).rsplit(".", 1)[-1]
        of_one = getattr(getattr(layers[name], "weight", None), "ndim", 1) < 3  # a norm of all dimensions has more
        if kind in LAST and of_one and output.ndim == dry.input.ndim:
            shapes.add(tuple(output.shape))
    return shapes
