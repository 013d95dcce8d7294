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
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from monai.networks.utils import eval_mode

from ..metrics.audit import pooled
from ..networks.layers.channel_dims import channel_dims, check_rows
from ..networks.layers.dry_run import default_feature_layers, dry_run, observe
from ..networks.layers.feature_layers import first_tensor, record_layers
from ..networks.nets.armed import ARMED
from .networks import NoLayers, layer_prefix

__all__ = ["Readings", "are_probabilities", "read_network", "score_of"]

Change = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class Readings:
    """
    Attributes:
        score: logit of class 1 (N,); of masks the log of the predicted over the true number of pixels.
        layers: features by layer, each (N, F): of maps the mean of every channel and then its s.d. over space.
        channels: of layers whose channels an eraser can act on, their number.
        dice: of masks, the Dice of each image (N,), NaN where both are empty.
        probabilities: whether the network gives probabilities.
    """

    score: np.ndarray
    layers: dict[str, np.ndarray] = field(default_factory=dict)
    channels: dict[str, int] = field(default_factory=dict)
    dice: np.ndarray | None = None
    probabilities: bool = False


def are_probabilities(output: torch.Tensor) -> bool:
    """Whether numbers of all samples (N, K) are between 0 and 1 and, of several classes, have the sum 1."""
    inside = bool(((output >= 0) & (output <= 1)).all())
    return inside and (output.shape[1] == 1 or bool(((output.sum(1) - 1).abs() < 1e-3).all()))


def score_of(output: torch.Tensor, positive: int = 1, probabilities: bool = False) -> torch.Tensor:
    """
    Logit of class 1 from what a classifier gives for all samples.

    Args:
        output: (N, 1), or (N, K) of which one class is asked for.
        positive: that class.
        probabilities: whether they are, or logits.

    Raises:
        ValueError: when the output is of another shape, or not finite.
    """
    if output.ndim != 2 or not 0 <= positive < max(output.shape[1], 2):
        raise ValueError(
            f"the network gives {tuple(output.shape)}: a classifier's logits are (samples, classes), and its class "
            f"{positive} is audited; of a network that segments say --segmentation."
        )
    if not output.isfinite().all():
        raise ValueError(f"{int((~output.isfinite()).any(1).sum())} of {len(output)} predictions are not finite.")
    output = output.double()
    if output.shape[1] == 1:
        return output[:, 0].logit(1e-7) if probabilities else output[:, 0]
    log_probability = output.clamp(min=1e-7).log() if probabilities else output.log_softmax(1)
    others = torch.cat([log_probability[:, :positive], log_probability[:, positive + 1 :]], 1)
    return log_probability[:, positive] - others.logsumexp(1)


def _mask_scores(output: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log of predicted over true foreground pixels, and Dice, each (B,); class 0 of several is the background."""
    found = output[:, :1] > 0 if output.shape[1] == 1 else output.argmax(1, keepdim=True) > 0
    found, true = found.flatten(1), mask.to(found.device).flatten(1) > 0
    if found.shape != true.shape:
        raise ValueError(
            f"the network gives maps of {tuple(output.shape[2:])} pixels, the masks have {tuple(mask.shape[2:])}."
        )
    a, b, both = found.sum(1), true.sum(1), (found & true).sum(1)
    return torch.log((a + 1) / (b + 1)), 2 * both / (a + b)


def _usual_layers(network: torch.nn.Module, input_shape: Sequence[int]) -> list[str]:
    """
    What ARMED's adversary sees; of an exported program, which has no linear layers to know them by, the last map of
    each size and all vectors. None where there is nothing between input and output.
    """
    dry = dry_run(network, input_shape)
    if not isinstance(network, torch.export.UnflattenedModule):
        try:
            return default_feature_layers(network, dry)
        except ValueError:
            return []
    last: dict[Any, str] = {}
    for name, output in dry.record.outputs.items():
        if output.shape != dry.output.shape and output.ndim in (2, dry.input.ndim):
            last[tuple(output.shape[2:]) or name] = name
    return [name for name in dry.record.outputs if name in last.values()]


def _dims(
    network: torch.nn.Module, inner: torch.nn.Module, x: torch.Tensor, names: Sequence[str]
) -> dict[str, int | None]:
    """Dimension of the channels of each layer that gives a tensor."""
    dry = observe(network, x[:2], inner) if names else None
    if dry is None:
        return {}
    tensors = [(name, dry.record.outputs[name]) for name in names if name in dry.record.outputs]
    return dict(zip((name for name, _ in tensors), channel_dims(inner, dry, tensors)))


@torch.no_grad()
def read_network(
    network: torch.nn.Module,
    batches: Iterable[Mapping[str, Any]],
    layers: Sequence[str] | None = None,
    masks: bool = False,
    changes: Mapping[str, Change] | None = None,
    positive: int = 1,
    probabilities: bool | None = None,
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
        positive: of several classes the one that is class 1.
        probabilities: whether it gives these; by default if all its numbers may be.
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
    scores, dices, channels, dims = [], [], {}, None
    features: dict[str, list[np.ndarray]] = {}
    with eval_mode(network) if not isinstance(network, torch.export.UnflattenedModule) else torch.no_grad():
        for batch in batches:
            x = torch.as_tensor(batch["image"]).to(device)
            if names is None:
                names = _usual_layers(inner, x.shape[1:])
            dims = _dims(network, inner, x, names) if dims is None else dims
            copied = {("output", name) for name in names}
            with record_layers(inner, outputs=names, copied=copied, changes=changes) as record:
                output = first_tensor(network(x))
            for full, value in record.outputs.items():
                name = full.removeprefix(prefix)
                check_rows(value, len(x), name)
                features.setdefault(name, []).append(pooled(value, dims.get(full)))
                if value.ndim == 2 or (value.ndim == x.ndim and dims.get(full) != x.ndim - 1):
                    channels[name] = value.shape[1]
            if masks:
                score, dice = _mask_scores(output, torch.as_tensor(batch["label"]))
                dices.append(dice.cpu().numpy())
            scores.append((score if masks else output).cpu())
    if not scores:
        raise ValueError("there is no sample to run the network on.")
    found = torch.cat(scores)
    if not masks:
        probabilities = are_probabilities(found) if probabilities is None else probabilities
        found = score_of(found, positive, probabilities)
    joined = _distinct({name: np.concatenate(parts) for name, parts in features.items()})
    of_masks = np.concatenate(dices) if masks else None
    return Readings(found.double().numpy(), joined, channels, of_masks, bool(probabilities))


def _distinct(layers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of layers with the same features but for constant ones, such as a pooled map and that flattened, the last."""
    kept: dict[str, np.ndarray] = {}
    for name, x in reversed(layers.items()):
        varied = x[:, np.ptp(x, axis=0) > 0]
        if varied.shape[1] and not any(np.array_equal(varied, other) for other in kept.values()):
            kept[name] = varied
    return {name: x for name, x in layers.items() if name in kept}
