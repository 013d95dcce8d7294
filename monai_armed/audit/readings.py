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
"""What a network says of the samples: a score of each, and the features of its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from monai.networks.utils import eval_mode

from ..metrics.audit import layer_dims
from ..networks.layers.channel_dims import check_rows, pooled
from ..networks.layers.feature_layers import LayerRecord, first_tensor, record_layers
from ..networks.nets.armed import ARMED
from ..networks.nets.erased_layers import tokens_read
from .layers import usual_layers
from .networks import NoLayers, layer_prefix
from .outputs import Asked, MapScores, OutputForm, class_form, score_of

__all__ = ["Readings", "read_network"]

Change = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class Readings:
    """
    Attributes:
        score: logit of class 1 (N,); of masks the log of the predicted over the true number of pixels.
        layers: features by layer, each (N, F): of maps the mean of every channel and then its s.d. over space; of
            tokens over those that the network goes on with, such as the class token.
        channels: of layers whose channels an eraser can act on, their number.
        dice: of masks, the Dice of each image (N,), NaN where both are empty.
        tokens: those of them that give (B, T, C).
        form: how the network's output was read.
    """

    score: np.ndarray
    layers: dict[str, np.ndarray] = field(default_factory=dict)
    channels: dict[str, int] = field(default_factory=dict)
    dice: np.ndarray | None = None
    tokens: set[str] = field(default_factory=set)
    form: OutputForm | None = None


@torch.no_grad()
def read_network(
    network: torch.nn.Module,
    batches: Iterable[Mapping[str, Any]],
    layers: Sequence[str] | None = None,
    masks: bool = False,
    changes: Mapping[str, Change] | None = None,
    asked: Asked | None = None,
    form: OutputForm | None = None,
    device: str | torch.device = "cpu",
) -> Readings:
    """
    Run a network over samples, in evaluation mode.

    Args:
        network: any network that takes images alone; of an :py:class:`monai_armed.networks.nets.ARMED` network what it
            predicts of unknown clusters is read, and the layers of the wrapped one.
        batches: dicts with ``image`` and, of masks, ``label``.
        layers: names of layers, of an erased network as they were; by default those that ARMED's adversary would see.
        masks: whether it segments.
        changes: what is done to the output of layers before the network goes on, by their name.
        asked: what is said of its output.
        form: how the output is read; by default as ``asked`` and its numbers say.
        device: where it runs.

    Returns:
        the readings.

    Raises:
        ValueError: when there is no batch, the output is not understood, or a score is not finite.
    """
    inner = network.network if isinstance(network, ARMED) else network
    prefix = layer_prefix(network)
    changes = {prefix + name: change for name, change in (changes or {}).items()}
    names = None if layers is None else [prefix + name for name in layers]
    if isinstance(network, NoLayers):
        names = []
    outputs: list[torch.Tensor] = []
    maps, found = MapScores(asked or Asked()), _LayersRead(network, inner, prefix)
    kind = _floating(network)
    with eval_mode(network) if not isinstance(network, torch.export.UnflattenedModule) else torch.no_grad():
        for batch in batches:
            x = torch.as_tensor(batch["image"]).to(device, kind)
            if names is None:
                names = usual_layers(inner, x.shape[1:])
            copied = {("output", name) for name in names}
            with record_layers(inner, outputs=names, copied=copied, changes=changes) as record:
                returned = _run(network, x)
            output = first_tensor(returned)
            things = len(returned) if isinstance(returned, (tuple, list)) else 1
            found.add(record, x, names)
            if masks:
                maps.add(output, torch.as_tensor(batch["label"]))
            outputs.append(output[:0] if masks else output.cpu())
    if not outputs:
        raise ValueError("there is no sample to run the network on.")
    joined, channels, tokens = found.joined(), found.channels, set(found.tokens)
    if masks:
        form, score, dice = maps.read(form)
        form = replace(form, returned=things)
        return Readings(score.double().numpy(), joined, channels, dice.numpy(), tokens, form)
    output = torch.cat(outputs)
    form = replace(form or class_form(output, asked or Asked()), returned=things)
    return Readings(score_of(output, form).numpy(), joined, channels, None, tokens, form)


class _LayersRead:
    """Features, channels and tokens of layers, batch after batch; see :py:class:`Readings`."""

    def __init__(self, network: torch.nn.Module, inner: torch.nn.Module, prefix: str) -> None:
        self.network, self.inner, self.prefix = network, inner, prefix
        self.dims: dict[str, int | None] | None = None
        self.features: dict[str, list[np.ndarray]] = {}
        self.channels: dict[str, int] = {}
        self.tokens: dict[str, tuple[int, ...] | None] = {}

    def add(self, record: LayerRecord, x: torch.Tensor, names: Sequence[str]) -> None:
        if self.dims is None:
            self.dims = layer_dims(self.network, x, names, part=self.inner) if names else {}
        for full, value in record.outputs.items():
            name = full.removeprefix(self.prefix)
            check_rows(value, len(x), name)
            dim = self.dims.get(full)
            if value.ndim == 3 and dim == 2:
                if name not in self.tokens:
                    self.tokens[name] = self._tokens_read(x[:2], full)
                value = value[:, list(self.tokens[name] or range(value.shape[1]))]
            self.features.setdefault(name, []).append(pooled(value.float(), dim or 1).cpu().numpy())
            if value.ndim == 2 or name in self.tokens or (value.ndim == x.ndim and dim != x.ndim - 1):
                self.channels[name] = value.shape[-1 if name in self.tokens else 1]

    def _tokens_read(self, x: torch.Tensor, layer: str) -> tuple[int, ...] | None:
        try:
            return tokens_read(self.network, x, layer, self.inner)
        except ValueError:  # none goes on: what the layer tells is looked at all the same
            return None

    def joined(self) -> dict[str, np.ndarray]:
        return _distinct({name: np.concatenate(parts) for name, parts in self.features.items()})


def _run(network: torch.nn.Module, x: torch.Tensor) -> Any:
    try:
        return network(x)
    except ValueError:
        raise
    except Exception as error:  # whatever PyTorch or ONNX Runtime says of an input
        raise ValueError(f"the network does not take images {tuple(x.shape)}: {_last_line(error)}") from error


def _last_line(error: Exception) -> str:
    return ([line for line in str(error).splitlines() if line.strip()] or [type(error).__name__])[-1].strip()


def _floating(network: torch.nn.Module) -> torch.dtype:
    """The type of its weights, half precision or another one."""
    tensors = (*network.parameters(), *network.buffers())
    return next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)


def _distinct(layers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of layers with the same features but for constant ones, such as a pooled map and that flattened, the last."""
    kept: dict[str, np.ndarray] = {}
    for name, x in reversed(layers.items()):
        varied = x[:, np.ptp(x, axis=0) > 0]
        if varied.shape[1] and not any(np.array_equal(varied, other) for other in kept.values()):
            kept[name] = varied
    return {name: x for name, x in layers.items() if name in kept}
