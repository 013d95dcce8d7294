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

"""Names of clusters and effects in the tables that are read from a network, and the tables of several factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from monai.networks.utils import eval_mode

from ..networks.blocks.factor_slopes import FactorSlopes
from ..networks.blocks.random_slopes import RandomSlopes
from ..networks.layers.feature_layers import find_layer
from ..networks.nets.armed import ARMED

__all__ = ["Names", "cluster_names", "effect_names", "factor_slopes", "joined", "latent_names"]

Names = Sequence[str] | Mapping[str, Sequence[str]] | None


def factor_slopes(net: ARMED) -> FactorSlopes:
    """The random effects of all factors, of a network that has any."""
    if not len(net.random_slopes):
        raise ValueError("the network has no random effects to read: build it with slopes or an intercept.")
    return net.random_slopes


def cluster_names(net: ARMED, factor: str, clusters: Names) -> list:
    """Names of a factor's clusters, or their indices."""
    several, count = net.clusters.has_named_factors, net.factors[factor]
    if clusters is not None and several and not isinstance(clusters, Mapping):
        wanted = f"a mapping of {list(net.factors)} to lists"
        raise ValueError(f"the names of the clusters must be {wanted}, got {type(clusters).__name__}.")
    if isinstance(clusters, Mapping) and (wrong := sorted(set(clusters) - set(net.factors))):
        raise ValueError(f"names of the clusters are given for {wrong}, but the factors are {list(net.factors)}.")
    given = clusters.get(factor) if isinstance(clusters, Mapping) else clusters
    names = list(range(count)) if given is None else list(given)
    if len(names) != count:
        called = f"clusters of the factor {factor!r}" if several else "clusters"
        raise ValueError(f"the network has {count} {called}, got {len(names)} names.")
    if (twice := pd.Series(names, dtype=object).duplicated()).any():
        name = names[int(twice.argmax())]
        raise ValueError(f"the name {name!r} is given to two clusters, whose rows could not be told apart.")
    return names


def joined(net: ARMED, tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The table of the one factor, or those of several below one another with their names in front."""
    if not net.clusters.has_named_factors:
        return next(iter(tables.values()))
    return pd.concat(tables, names=["factor"]).reset_index(level=0).reset_index(drop=True)


def latent_names(net: ARMED, feature_names: Sequence[str] | None) -> list[str] | None:
    """The features' names if the last layer sees the features themselves: if the network is linear."""
    if feature_names is None:
        return None
    head = find_layer(net.network, net.head)
    if not isinstance(head, torch.nn.Linear) or head.in_features > len(feature_names):
        return None
    x = torch.randn(2, len(feature_names), device=head.weight.device, dtype=head.weight.dtype)
    try:
        with torch.no_grad(), eval_mode(net.network):
            _, latent = net.fixed_and_latent(x)
    except (RuntimeError, ValueError):  # the input is no table of that width
        return None
    seen = x[:, : head.in_features]  # further ones have random slopes only
    return list(feature_names)[: head.in_features] if torch.equal(latent, seen) else None


def effect_names(net: ARMED, slopes: RandomSlopes, feature_names: Sequence[str] | None) -> list[tuple[str, str]]:
    """Group and name of each effect of one factor, by the features' names where effects belong to features."""
    latent = None if "linear" in slopes.groups else latent_names(net, feature_names)  # no name twice
    return slopes.effect_names(latent, feature_names)
