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

from collections.abc import Mapping, Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..layers.random_effects import RandomEffects

__all__ = ["RandomSlopes"]


class RandomSlopes(nn.Module):
    """
    Random slopes and intercept, and their sum h_R (Eq. 9 to 12 of https://arxiv.org/abs/2202.11783)::

        h_R = u_nonlinear(z) . h  +  u_linear(z) . x  +  u_intercept(z)

    with h the input of the wrapped network's last layer and x its input. h_R has the shape of the logits, to which it
    is added (Eq. 13, S-3). All effects are units of one :py:class:`RandomEffects` layer.

    Args:
        num_clusters: number of clusters C.
        out_channels: number of logits K.
        latent_channels: number of units q of h that get a nonlinear slope; 0 for none.
        linear_channels: number of features p of x, each of which gets a linear slope (tables only); 0 for none. Or the
            columns of x that get one, such as (0, 3).
        intercept: whether each logit gets a random intercept.
        multiplicative: if True, the nonlinear slopes rescale the latent before the last layer, h (1 + u), one slope
            per unit for all logits, instead of being multiplied with it and added to the logits (Eq. 9).
        prior_scale: s.d. of the prior, one number, or one for each of the groups ``"nonlinear"``, ``"linear"`` and
            ``"intercept"``.
        kwargs: further arguments of :py:class:`RandomEffects`.

    Raises:
        ValueError: when no effect is asked for, or ``prior_scale`` names an unknown group.
    """

    def __init__(
        self,
        num_clusters: int,
        out_channels: int,
        latent_channels: int = 0,
        linear_channels: int | Sequence[int] = 0,
        intercept: bool = True,
        multiplicative: bool = False,
        prior_scale: float | Mapping[str, float] = 0.25,
        **kwargs,
    ) -> None:
        super().__init__()
        self.out_channels, self.multiplicative = out_channels, multiplicative
        self.chosen = not isinstance(linear_channels, int)  # some columns of x have slopes
        self.linear_columns = list(range(linear_channels) if isinstance(linear_channels, int) else linear_channels)
        sizes = {
            "nonlinear": latent_channels * (1 if multiplicative else out_channels),
            "linear": len(self.linear_columns) * out_channels,
            "intercept": out_channels if intercept else 0,
        }
        self.groups = {group: size for group, size in sizes.items() if size}
        if not self.groups:
            raise ValueError("at least one of nonlinear slopes, linear slopes and intercept is needed.")
        if isinstance(prior_scale, Mapping):
            if set(prior_scale) != set(self.groups):
                raise ValueError(f"prior_scale must have the keys {list(self.groups)}, got {list(prior_scale)}.")
            scale = torch.cat([torch.full((size,), float(prior_scale[group])) for group, size in self.groups.items()])
        else:
            scale = torch.as_tensor(float(prior_scale))
        self.effects = RandomEffects(num_clusters, sum(self.groups.values()), prior_scale=scale, **kwargs)

    def effect_names(
        self, latent_names: Sequence[str] | None = None, feature_names: Sequence[str] | None = None
    ) -> list[tuple[str, str]]:
        """
        Group and name of each of the Q effects, in their order.

        Args:
            latent_names: names of the units of h; by default ``"h0"``, ``"h1"``, ...
            feature_names: names of the features of x, of all or of those with slopes; by default ``"x0"``, ...

        Returns:
            pairs such as ``("linear", "age")`` or ``("intercept", "(Intercept)")``; with several logits the name ends
            with the logit's number, ``"age[1]"``, unless the effect is shared by all logits.

        Raises:
            ValueError: when the number of names is wrong.
        """
        columns = self.linear_columns
        if feature_names is None:
            feature_names = [f"x{i}" for i in columns]
        elif self.chosen and len(feature_names) > max(columns, default=0):
            feature_names = [feature_names[i] for i in columns]
        given = {"nonlinear": (latent_names, "h"), "linear": (feature_names, ""), "intercept": (["(Intercept)"], "")}
        pairs = []
        for group, size in self.groups.items():
            shared = group == "nonlinear" and self.multiplicative
            logits = 1 if shared else self.out_channels
            names, letter = given[group]
            names = [f"{letter}{i}" for i in range(size // logits)] if names is None else list(names)
            if len(names) * logits != size:
                raise ValueError(f"the {group} slopes are of {size // logits} units, got {len(names)} names.")
            ends = [""] if logits == 1 else [f"[{k}]" for k in range(logits)]
            pairs += [(group, name + end) for name in names for end in ends]
        return pairs

    def _with_slopes(self, x: torch.Tensor) -> torch.Tensor:
        columns = self.linear_columns
        return x if columns == list(range(x.shape[1])) else x[:, columns]

    def split(self, u: torch.Tensor) -> dict[str, torch.Tensor]:
        """Effects (..., Q) by group, each (..., units, logits); (..., units) for multiplicative slopes."""
        parts = dict(zip(self.groups, u.split(list(self.groups.values()), dim=-1)))
        return {
            group: part if group == "nonlinear" and self.multiplicative else part.unflatten(-1, (-1, self.out_channels))
            for group, part in parts.items()
        }

    def forward(
        self, u: torch.Tensor, latent: torch.Tensor, x: torch.Tensor, fixed: torch.Tensor, head: nn.Module
    ) -> torch.Tensor:
        """
        Args:
            u: effects of each sample, (B, Q).
            latent: input of the last layer, (B, q) or, for dense predictions, (B, q, *spatial); where the logits are of
                no place the mean over space counts.
            x: the network's input; used by linear slopes, (B, p).
            fixed: fixed logits, the last layer's output for ``latent``.
            head: the last layer, which multiplicative slopes need.

        Returns:
            h_R, to be added to the logits: (B, K), or (B, K, *spatial) or (B, K, 1, ...) for dense predictions.
        """
        parts = self.split(u)
        spatial_shape = fixed.shape[2:]
        spatial = (1,) * len(spatial_shape)
        out = u.new_zeros((u.shape[0], self.out_channels) + spatial)
        if "intercept" in parts:
            out = out + parts["intercept"].squeeze(-2).unflatten(-1, (-1,) + spatial)
        if "linear" in parts:
            out = out + torch.einsum("bpk,bp->bk", parts["linear"], self._with_slopes(x).to(u.dtype))
        if "nonlinear" in parts:
            slopes = parts["nonlinear"]
            if self.multiplicative:
                out = out + head(latent * (1 + slopes.unflatten(-1, (-1,) + spatial))) - fixed
            else:
                product = torch.einsum("bqk,bq...->bk...", slopes, latent)
                if product.ndim != fixed.ndim:  # a latent of maps, or of tokens
                    mean = product.flatten(2).mean(2) if product.ndim > 2 else product
                    product = mean.unflatten(-1, (-1,) + spatial)
                elif product.shape[2:] != spatial_shape:  # a last layer that upsamples
                    product = F.interpolate(product, spatial_shape)
                out = out + product
        return out
