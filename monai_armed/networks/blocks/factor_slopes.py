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

from collections.abc import ItemsView, Mapping, Sequence, ValuesView
from typing import TYPE_CHECKING, Any

import torch
import torch.nn as nn

from .random_slopes import RandomSlopes

__all__ = ["FactorSlopes"]

GROUPS = ("nonlinear_slopes", "linear_slopes", "intercept", "multiplicative")


class FactorSlopes(nn.ModuleDict):
    """
    The random effects of every factor: :py:class:`RandomSlopes` by the factor's name, of those that have any.

    Args:
        num_clusters: number of clusters, of a factor that is then called ``"cluster"``, or of each factor by its name.
        sizes: shape of an input without the batch dimension, channels of the latent, and of the logits.
        slopes: ``nonlinear_slopes``, ``linear_slopes``, ``intercept`` and ``multiplicative``, each True or False;
            ``linear_slopes`` also columns of the input, such as [0, 3].
        random_effects: further arguments of :py:class:`RandomSlopes`; of several factors those of each by its name,
            where the ones above may be among them.

    Raises:
        ValueError: when ``random_effects`` names another factor, one of ``slopes`` is neither True nor False, or linear
            slopes are of no columns of the input, or asked for where it is no table.
    """

    if TYPE_CHECKING:

        def __getitem__(self, key: str) -> RandomSlopes: ...
        def items(self) -> ItemsView[str, RandomSlopes]: ...
        def values(self) -> ValuesView[RandomSlopes]: ...

    def __init__(
        self,
        num_clusters: int | Mapping[str, int],
        sizes: tuple[tuple[int, ...], int, int],
        slopes: Mapping[str, bool | Sequence[int]],
        random_effects: Mapping[str, Any],
    ) -> None:
        super().__init__()
        if not isinstance(num_clusters, Mapping):
            num_clusters, random_effects = {"cluster": num_clusters}, {"cluster": random_effects}
        if not set(random_effects) <= set(num_clusters):
            raise ValueError(f"random_effects is for {list(random_effects)}, but the factors are {list(num_clusters)}.")
        input_shape, latent_channels, out_channels = sizes
        for factor, count in num_clusters.items():
            options: dict[str, Any] = {**slopes, **random_effects.get(factor, {})}
            wanted = {name: options.pop(name) for name in GROUPS}
            for name, value in wanted.items():
                if not isinstance(value, bool) and name != "linear_slopes":
                    raise ValueError(f"{name} must be True or False, got {value!r}: slopes are of all features.")
            columns = _columns(wanted["linear_slopes"], input_shape)
            if wanted["nonlinear_slopes"] or columns or wanted["intercept"]:
                self[factor] = RandomSlopes(
                    count,
                    out_channels,
                    latent_channels if wanted["nonlinear_slopes"] else 0,
                    len(columns) if wanted["linear_slopes"] is True else columns,
                    intercept=wanted["intercept"],
                    multiplicative=wanted["multiplicative"],
                    **options,
                )

    def forward(
        self,
        clusters: Mapping[str, torch.Tensor],
        latent: torch.Tensor,
        x: torch.Tensor,
        fixed: torch.Tensor,
        head: nn.Module,
        tables: Mapping[str, torch.Tensor] | None = None,
        new: Mapping[str, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """
        What the random effects of all factors add to the logits.

        Args:
            clusters: resolved clusters of every factor, see :py:class:`monai_armed.networks.nets.ClusterResolution`.
            latent, x, fixed, head: see :py:class:`RandomSlopes`.
            tables: effects (C, Q) of the clusters of every factor, in place of the posteriors' draws or means.
            new: effects (B, Q) of every factor for samples of which no cluster is known, in place of zero.
        """
        terms = []
        for factor, slopes in self.items():
            cluster = clusters[factor]
            effects = slopes.effects(cluster, table=tables[factor] if tables else None, checked=True)
            if new is not None:
                # neither an index nor an inferred assignment: a new cluster
                unknown = cluster.sum(dim=1) == 0 if cluster.is_floating_point() else cluster < 0
                effects = torch.where(unknown.unsqueeze(-1), new[factor], effects)
            effects = effects.to(slopes.effects.loc.dtype)  # draws are not in half precision
            terms.append(slopes(effects, latent, x, fixed, head))
        return sum(terms[1:], terms[0])

    def kl(self) -> torch.Tensor:
        """KL term of Eq. 7, summed over the factors; of many clusters an estimate. A scalar."""
        terms = [slopes.effects.kl(estimate=True) for slopes in self.values()]
        return sum(terms[1:], terms[0])


def _columns(linear_slopes: bool | Sequence[int], input_shape: tuple[int, ...]) -> list[int]:
    """The columns of the input that have linear slopes."""
    if linear_slopes is False:
        return []
    if len(input_shape) != 1:
        raise ValueError(f"linear slopes are for tables, whose input has one dimension, got {input_shape}.")
    size = input_shape[0]
    columns = list(range(size)) if linear_slopes is True else linear_slopes
    whole = isinstance(columns, (list, tuple)) and all(type(column) is int and 0 <= column < size for column in columns)
    if not whole:
        raise ValueError(
            f"linear_slopes must be True, False or columns between 0 and {size - 1}, got {linear_slopes!r}."
        )
    if len(set(columns)) < len(columns):
        raise ValueError(f"linear_slopes names a column twice: {linear_slopes}.")
    return list(columns)
