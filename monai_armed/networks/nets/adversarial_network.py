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

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn as nn
from torch.func import functional_call

from ..layers.gradient_reversal import reverse_gradient
from .adversaries import Adversary, ConvAdversary, DenseAdversary, PooledAdversary, WhitenedAdversary
from .cluster_network import ClusterNetwork

__all__ = ["AdversarialNetwork"]

ADVERSARIES = {
    "pooled": PooledAdversary,
    "whitened": WhitenedAdversary,
    "conv": ConvAdversary,
    "dense": DenseAdversary,
}


class AdversarialNetwork(ClusterNetwork):
    """
    Base of cluster networks with an adversary, which guesses the cluster from tapped layers (Eq. 3 to 5 of
    https://arxiv.org/abs/2202.11783).

    Args:
        num_clusters: number of clusters, or that of each factor.
        unknown: see :py:class:`ClusterNetwork`.
        num_classes: if above 0 the adversary has one set of cluster logits for each class.
        confusion: whether the features are to leave the adversary without an opinion, rather than to raise its error.
    """

    reversal_strength: torch.Tensor

    def __init__(
        self, num_clusters: int | Mapping[str, int], unknown: str, num_classes: int = 0, confusion: bool = False
    ) -> None:
        super().__init__(num_clusters, unknown)
        self.num_classes, self.confusion = num_classes, confusion
        self.taps: tuple[str, ...] = ()
        self.adversary: nn.Module | None = None
        # not part of the state dict: a training schedule sets it anew in each run
        self.register_buffer("reversal_strength", torch.tensor(1.0), persistent=False)

    def _build_adversary(
        self,
        adversary: str | nn.Module | Callable[..., nn.Module] | None,
        tap_shapes: Sequence[Sequence[int]],
        spatial_dims: int,
    ) -> nn.Module | None:
        if adversary is None or isinstance(adversary, nn.Module):
            return adversary
        if callable(adversary):
            return adversary(tap_shapes, self.num_clusters * max(1, self.num_classes))
        if adversary not in ADVERSARIES:
            raise ValueError(
                f"adversary must be one of {list(ADVERSARIES)}, a module, what builds one, or None, got {adversary!r}."
            )
        options = {} if adversary == "dense" else {"spatial_dims": spatial_dims}
        return ADVERSARIES[adversary](tap_shapes, self.num_clusters * max(1, self.num_classes), **options)

    def set_reversal_strength(self, strength: float) -> None:
        """Factor of the gradient from the adversary to the features, at least 0, usually up to 1; for its warm-up."""
        if strength < 0:
            raise ValueError(f"strength must not be negative, got {strength}: the sign is taken care of.")
        self.reversal_strength.fill_(strength)

    def _pooled(self, tapped: list[torch.Tensor]) -> list[torch.Tensor]:
        """What the adversary sees of the tapped outputs: the gradient is reversed there, where that costs least."""
        return self.adversary.pool(tapped) if isinstance(self.adversary, Adversary) else tapped

    def _adversary_outputs(self, tapped: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        In training the cluster logits of the ``"adversary"``, with the gradient to the features reversed; or, with
        ``confusion``, without a gradient to them, and ``"confusion"``, the same logits for the features' own objective,
        with the adversary's weights frozen.
        """
        if not self.confusion:
            return {"adversary": self._cluster_logits([reverse_gradient(t, self.reversal_strength) for t in tapped])}
        scaled = [reverse_gradient(t, -self.reversal_strength) for t in tapped]
        return {
            "adversary": self._cluster_logits([t.detach() for t in tapped]),
            "confusion": self._cluster_logits(scaled, frozen=True),
        }

    def _cluster_logits(self, tapped: list[torch.Tensor], frozen: bool = False) -> torch.Tensor:
        assert self.adversary is not None
        if frozen:
            weights = {name: p.detach() for name, p in self.adversary.named_parameters()}
            logits = functional_call(self.adversary, weights, (tapped,))
        else:
            logits = self.adversary(tapped)
        return logits.unflatten(1, (self.num_clusters, self.num_classes)) if self.num_classes else logits
