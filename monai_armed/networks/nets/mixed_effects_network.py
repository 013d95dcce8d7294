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

from collections.abc import Mapping
from typing import Any

import pyro
import torch
import torch.nn as nn
from monai.networks.utils import eval_mode

from ..blocks.random_slopes import RandomSlopes
from ..layers.taps import find_layer, first_tensor, record_layers
from .adversarial_network import AdversarialNetwork

__all__ = ["MixedEffectsNetwork"]

Clusters = torch.Tensor | Mapping[str, torch.Tensor] | None


class MixedEffectsNetwork(AdversarialNetwork):
    """
    The mixed effects part of :py:class:`monai_armed.networks.nets.ARMED`: a network whose last layer's output, the
    fixed logits, is added to random slopes and intercepts of every factor (Eq. 13 of
    https://arxiv.org/abs/2202.11783), and draws of what it predicts.

    Args:
        network: the network of the fixed effects.
        num_clusters: number of clusters, or that of each factor.
        unknown: see :py:class:`monai_armed.networks.nets.ClusterNetwork`.
        adversary_options: further arguments of :py:class:`AdversarialNetwork`.
    """

    def __init__(
        self, network: nn.Module, num_clusters: int | Mapping[str, int], unknown: str, **adversary_options: Any
    ) -> None:
        super().__init__(num_clusters, unknown, **adversary_options)
        self.network = network
        self.head = ""
        self.random_slopes: RandomSlopes | nn.ModuleDict | None = None

    @property
    def has_named_factors(self) -> bool:
        """Whether random effects belong to factors that the user has named, such as site and subject."""
        return isinstance(self.random_slopes, nn.ModuleDict)

    @property
    def factor_slopes(self) -> dict[str, RandomSlopes]:
        """Random slopes and intercept of each factor that has any, by its name."""
        if isinstance(self.random_slopes, nn.ModuleDict):
            return dict(self.random_slopes.items())  # type: ignore[arg-type]
        return {} if self.random_slopes is None else {next(iter(self.factors)): self.random_slopes}

    def _random(self, x, clusters: Mapping[str, torch.Tensor], latent, fixed) -> torch.Tensor:
        """What the random effects of all factors add to the logits."""
        effects = {name: slopes.effects(clusters[name]) for name, slopes in self.factor_slopes.items()}
        return self._added(effects, x, latent, fixed)

    def _added(self, effects: Mapping[str, torch.Tensor], x, latent, fixed) -> torch.Tensor:
        """What effects (B, Q) of every factor add to the logits."""
        last = find_layer(self.network, self.head)
        terms = [slopes(effects[name], latent, x, fixed, last) for name, slopes in self.factor_slopes.items()]
        return sum(terms[1:], terms[0])

    def fixed_and_latent(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Fixed logits (B, K, ...) and latent h (B, q, ...), the last layer's input, of the network's input."""
        with record_layers(self.network, inputs=(self.head,)) as record:
            fixed = first_tensor(self.network(x))
        return fixed, record.inputs[self.head]

    def _drawn(self, x, clusters: Mapping[str, torch.Tensor], features, tables: dict, new: dict) -> torch.Tensor:
        """Mixed logits with each factor's effects of a table (C, Q), and those of ``new`` (B, Q) for new clusters."""
        fixed, latent = features
        effects = {}
        for name, slopes in self.factor_slopes.items():
            cluster = clusters[name]
            # neither an index nor an inferred assignment: a new cluster
            unknown = cluster.sum(dim=1) == 0 if cluster.is_floating_point() else cluster < 0
            effects[name] = torch.where(unknown.unsqueeze(-1), new[name], slopes.effects(cluster, tables[name]))
        return fixed + self._added(effects, x, latent, fixed)

    def _slopes_to_draw(self) -> dict[str, RandomSlopes]:
        if not self.factor_slopes:
            raise ValueError("the network has no random effects to draw.")
        return self.factor_slopes

    @torch.no_grad()
    def sample_logits(
        self, x: torch.Tensor, cluster: Clusters = None, num_samples: int = 100, unknown: str | None = None
    ) -> torch.Tensor:
        """
        Mixed logits under draws of the random effects, for predictive intervals: of the posterior for known clusters,
        of its mixture by the Z-predictor for inferred ones, and of the prior where nothing is known of the cluster.
        The same as ``pyro.infer.Predictive`` on :py:meth:`pyro_model`, with one pass through the network.

        Args:
            x: (B, *input_shape).
            cluster: as for the call of the network.
            num_samples: number of draws S.
            unknown: overrides the policy for unknown clusters in this call.

        Returns:
            (S, B, K, ...).

        Raises:
            ValueError: when the network has no random effects, or ``num_samples`` is not positive.
        """
        slopes = self._slopes_to_draw()
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}.")
        with eval_mode(self):  # no dropout, and the batch norm's statistics stay as they are
            features = self.fixed_and_latent(x)
            clusters = self.resolve_factors(x, cluster, unknown)
        posterior = {name: s.effects.posterior() for name, s in slopes.items()}
        prior = {name: s.effects.cluster_prior().expand([x.shape[0]]) for name, s in slopes.items()}
        draws = []
        for _ in range(num_samples):
            tables, new = ({name: d.sample() for name, d in which.items()} for which in (posterior, prior))
            draws.append(self._drawn(x, clusters, features, tables, new))
        return torch.stack(draws)

    def _site(self, factor: str, name: str = "u") -> str:
        """Name of the Pyro site of a factor's effects."""
        return f"{name}_{factor}" if self.has_named_factors else name

    def pyro_model(self, x: torch.Tensor, cluster: Clusters = None) -> torch.Tensor:
        """
        The network as a Pyro model whose one latent site ``"u"`` is the table of random effects (C, Q), for
        ``pyro.infer.Predictive(net.pyro_model, guide=net.pyro_guide, num_samples=n)``, NUTS and the like. A sample of
        unknown cluster gets random effects of its own, drawn from the prior at site ``"u_new"``, or those mixed by the
        Z-predictor. With several factors each has its sites, such as ``"u_subject"`` and ``"u_new_subject"``.

        Returns:
            mixed logits, also recorded as site ``"logits"``.

        Raises:
            ValueError: when the network has no random effects.
        """
        slopes = self._slopes_to_draw()
        features = self.fixed_and_latent(x)
        clusters = self.resolve_factors(x, cluster)
        tables, new = {}, {}
        for name, s in slopes.items():
            tables[name] = pyro.sample(self._site(name), s.effects.prior())
            of_each = s.effects.cluster_prior().expand([x.shape[0]]).to_event(1)
            new[name] = pyro.sample(self._site(name, "u_new"), of_each)
        return pyro.deterministic("logits", self._drawn(x, clusters, features, tables, new))

    def pyro_guide(self, x: torch.Tensor, cluster: Clusters = None) -> None:
        """The posterior of the random effects as a Pyro guide of :py:meth:`pyro_model`."""
        for name, slopes in self._slopes_to_draw().items():
            pyro.sample(self._site(name), slopes.effects.posterior())
