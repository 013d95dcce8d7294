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

"""Draws of what an ARMED network predicts, under the distributions of its random effects; its methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyro
import torch
from monai.networks.utils import eval_mode

from .cluster_resolution import Clusters

if TYPE_CHECKING:
    from ..blocks.factor_slopes import FactorSlopes
    from .armed import ARMED

__all__ = ["pyro_guide", "pyro_model", "sample_logits"]


def _slopes_to_draw(net: ARMED) -> FactorSlopes:
    if not len(net.random_slopes):
        raise ValueError("the network has no random effects to draw.")
    return net.random_slopes


def _site(net: ARMED, factor: str, name: str = "u") -> str:
    """Name of the Pyro site of a factor's effects."""
    return f"{name}_{factor}" if net.clusters.has_named_factors else name


@torch.no_grad()
def sample_logits(
    self: ARMED, x: torch.Tensor, cluster: Clusters = None, num_samples: int = 100, unknown: str | None = None
) -> torch.Tensor:
    """
    Mixed logits under draws of the random effects, for predictive intervals: of the posterior for known clusters, of
    its mixture by the Z-predictor for inferred ones, and of the prior where nothing is known of the cluster. The same
    as ``pyro.infer.Predictive`` on :py:meth:`pyro_model`, with one pass through the network.

    Args:
        x, cluster, unknown: as for the call of the network.
        num_samples: number of draws S.

    Returns:
        (S, B, K, ...).

    Raises:
        ValueError: when the network has no random effects, or ``num_samples`` is not positive.
    """
    slopes = _slopes_to_draw(self)
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}.")
    with eval_mode(self):  # no dropout, and the batch norm's statistics stay as they are
        fixed, latent = self.fixed_and_latent(x)
        clusters = self.clusters(x, cluster, unknown)
    posterior = {name: s.effects.posterior() for name, s in slopes.items()}
    prior = {name: s.effects.cluster_prior().expand([x.shape[0]]) for name, s in slopes.items()}
    draws = []
    for _ in range(num_samples):
        tables, new = ({name: d.sample() for name, d in which.items()} for which in (posterior, prior))
        draws.append(fixed + self.random(x, clusters, fixed, latent, tables=tables, new=new))
    return torch.stack(draws)


def pyro_model(self: ARMED, x: torch.Tensor, cluster: Clusters = None) -> torch.Tensor:
    """
    The network as a Pyro model whose one latent site ``"u"`` is the table of random effects (C, Q), for
    ``pyro.infer.Predictive(net.pyro_model, guide=net.pyro_guide, num_samples=n)``, NUTS and the like. A sample of
    unknown cluster gets random effects of its own, drawn from the prior at site ``"u_new"``, or those mixed by the
    Z-predictor. With named factors each has its sites, such as ``"u_subject"`` and ``"u_new_subject"``.

    Returns:
        mixed logits, also recorded as site ``"logits"``.

    Raises:
        ValueError: when the network has no random effects.
    """
    slopes = _slopes_to_draw(self)
    fixed, latent = self.fixed_and_latent(x)
    clusters = self.clusters(x, cluster)
    tables, new = {}, {}
    for name, s in slopes.items():
        tables[name] = pyro.sample(_site(self, name), s.effects.prior())
        of_each = s.effects.cluster_prior().expand([x.shape[0]]).to_event(1)
        new[name] = pyro.sample(_site(self, name, "u_new"), of_each)
    return pyro.deterministic("logits", fixed + self.random(x, clusters, fixed, latent, tables=tables, new=new))


def pyro_guide(self: ARMED, x: torch.Tensor, cluster: Clusters = None) -> None:
    """The posterior of the random effects as a Pyro guide of :py:meth:`pyro_model`."""
    for name, slopes in _slopes_to_draw(self).items():
        pyro.sample(_site(self, name), slopes.effects.posterior())
