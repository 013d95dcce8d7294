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

"""Features from which the distance to the training data is told: layers by name and the input, pooled over space."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager

import torch
import torch.nn as nn
from monai.networks.utils import eval_mode
from monai.utils import ensure_tuple

from ..utils.parallel import unwrap
from .layers.channel_dims import channel_dims, check_rows, pooled
from .layers.dry_run import default_feature_layers, observe
from .layers.feature_layers import LayerRecord, record_layers
from .nets.armed import ARMED
from .nets.armed_aec import ARMEDAEC
from .nets.cluster_input import ClusterInput

__all__ = ["features_looked_at", "pooled_features", "read_features", "recorded"]

INPUT = "<input>"  # among the layers; no layer can be called so


def _trunk(network: nn.Module) -> tuple[nn.Module, dict[str, str]]:
    """The module whose layers are looked at, and how the network is called so that no cluster is asked for."""
    if isinstance(network, ARMEDAEC):
        return network.fixed, {"effects": "fixed"}
    if isinstance(network, ARMED):
        return network.network, {"effects": "fixed"}
    return (network.network, {"unknown": "population"}) if isinstance(network, ClusterInput) else (network, {})


def features_looked_at(network: nn.Module, x: torch.Tensor, layers: Sequence[str] | None) -> dict[str, int]:
    """The input and the layers, or those of an adversary; of each the dimension of the channels, 1 if none tells it."""
    network = unwrap(network)
    trunk, options = _trunk(network)
    with eval_mode(network):
        dry = observe(network, x[:2].to(_device(network)), trunk, **options)
    names = default_feature_layers(trunk, dry, getattr(network, "head", "")) if layers is None else ensure_tuple(layers)
    tensors = [("", dry.input), *((name, dry.record.outputs.get(name, dry.input)) for name in names)]
    return {name: dim or 1 for name, dim in zip((INPUT, *names), channel_dims(trunk, dry, tensors))}


def read_features(network: nn.Module, x: torch.Tensor, dims: Mapping[str, int]) -> dict[str, torch.Tensor]:
    """Features (B, D) of each layer, whose channels are in a dimension, in double precision on the CPU."""
    network = unwrap(network)
    x = x.to(_device(network))
    with eval_mode(network), recorded(network, dims) as record:
        network(x, **_trunk(network)[1])
    return pooled_features(record, x, dims)


def recorded(network: nn.Module, dims: Iterable[str]) -> AbstractContextManager[LayerRecord]:
    """Keep what the layers give while the network runs."""
    named = [name for name in dims if name != INPUT]
    copied = {("output", name) for name in named}  # what comes later may write into them
    return record_layers(_trunk(unwrap(network))[0], outputs=named, copied=copied)


def pooled_features(record: LayerRecord, x: torch.Tensor, dims: Mapping[str, int]) -> dict[str, torch.Tensor]:
    """Features (B, D) of what was kept and of the input, whose channels are in a dimension."""
    for name in dims.keys() - {INPUT}:
        check_rows(record.outputs[name], len(x), name)
    kept = {name: (x if name == INPUT else record.outputs[name]).detach().cpu().double() for name in dims}
    return {name: pooled(features, dims[name]) for name, features in kept.items()}


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
