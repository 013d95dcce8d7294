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

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn as nn
from torch.func import functional_call

from ..layers.gradient_reversal import reverse_gradient
from .adversary_classifiers import ConvAdversary, DenseAdversary, PooledAdversary, WhitenedAdversary

__all__ = ["Adversary"]

CLASSIFIERS = {
    "pooled": PooledAdversary,
    "whitened": WhitenedAdversary,
    "conv": ConvAdversary,
    "dense": DenseAdversary,
}


class Adversary(nn.Module):
    """
    The adversary of a network (Eq. 3 to 5 of https://arxiv.org/abs/2202.11783): a classifier guesses the cluster from
    the network's features, and the gradient that the features get from it is reversed.

    Args:
        classifier: maps a list of features to cluster logits (B, C), or (B, C * num_classes).
        num_clusters: number of clusters C.
        num_classes: if above 0 the adversary is conditional on the class: it has one set of cluster logits for each.
        confusion: whether the features are to leave the adversary without an opinion, rather than to raise its error.

    Example:
        >>> adversary = Adversary(DenseAdversary([(8,), (4,)], num_clusters=12), num_clusters=12)
        >>> adversary([torch.rand(5, 8), torch.rand(5, 4)])["adversary"].shape
        torch.Size([5, 12])
    """

    reversal_strength: torch.Tensor

    def __init__(self, classifier: nn.Module, num_clusters: int, num_classes: int = 0, confusion: bool = False) -> None:
        super().__init__()
        self.classifier = classifier
        self.num_clusters, self.num_classes, self.confusion = num_clusters, num_classes, confusion
        # not part of the state dict: a training schedule sets it anew in each run
        self.register_buffer("reversal_strength", torch.tensor(1.0), persistent=False)

    @classmethod
    def build(
        cls,
        classifier: str | nn.Module | Callable[..., nn.Module],
        feature_shapes: Sequence[Sequence[int]],
        spatial_dims: int,
        num_clusters: int,
        num_classes: int = 0,
        confusion: bool = False,
    ) -> Adversary:
        """
        An adversary for features of given shapes (without the batch dimension, channels first) of a network whose input
        has ``spatial_dims``. The classifier is ``"pooled"``, ``"whitened"``, ``"conv"`` or ``"dense"``, a module, or
        what builds one from the shapes and the number of cluster logits, such as
        ``partial(DenseAdversary, hidden_channels=(32, 32))``; another is a ValueError.
        """
        if isinstance(classifier, cls):
            return classifier
        if isinstance(classifier, nn.Module):
            return cls(classifier, num_clusters, num_classes, confusion)
        num_logits = num_clusters * max(1, num_classes)
        if callable(classifier):
            made = classifier(feature_shapes, num_logits)
        elif isinstance(classifier, str) and classifier in CLASSIFIERS:
            options: dict[str, Any] = {"spatial_dims": spatial_dims} if classifier == "conv" else {}
            made = CLASSIFIERS[classifier](feature_shapes, num_logits, **options)
        else:
            raise ValueError(
                f"adversary must be one of {list(CLASSIFIERS)}, what builds one, a module or None, got {classifier!r}."
            )
        return cls(made, num_clusters, num_classes, confusion)

    def set_reversal_strength(self, strength: float) -> None:
        """Factor of the gradient from the adversary to the features, at least 0, usually up to 1; for its warm-up."""
        if strength < 0:
            raise ValueError(f"strength must not be negative, got {strength}: the sign is taken care of.")
        self.reversal_strength.fill_(strength)

    def pool(self, features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """What the classifier sees of the features, as small as it may be; all else here takes these as well."""
        return self.classifier.pool(features) if isinstance(self.classifier, PooledAdversary) else list(features)

    def logits(self, features: Sequence[torch.Tensor], frozen: bool = False) -> torch.Tensor:
        """Cluster logits (B, C) or (B, C, num_classes) of features (B, ...); frozen, without a gradient to weights."""
        if not frozen:
            logits = self.classifier(features)
        elif getattr(self, "_is_replica", False):
            raise ValueError("DataParallel cannot freeze an adversary: use DistributedDataParallel.")
        else:
            weights = {name: p.detach() for name, p in self.classifier.named_parameters()}
            logits = functional_call(self.classifier, weights, (features,))
        return logits.unflatten(1, (self.num_clusters, self.num_classes)) if self.num_classes else logits

    def forward(self, features: Sequence[torch.Tensor], frozen: bool = False) -> dict[str, torch.Tensor]:
        """
        What the adversary says in training, for :py:class:`monai_armed.losses.ARMEDLoss`.

        Args:
            features: tensors (B, ...) of the network.
            frozen: whether the classifier learns elsewhere, as in :py:class:`monai_armed.engines.ARMEDTrainer`.

        Returns:
            the cluster logits ``"adversary"``, with the gradient to the features reversed; or, with ``confusion``,
            without a gradient to them, and ``"confusion"``, the same logits for the features' own objective, without a
            gradient to the weights.
        """
        features, strength = self.pool(features), self.reversal_strength
        if not self.confusion:
            return {"adversary": self.logits([reverse_gradient(f, strength) for f in features], frozen)}
        own = None if frozen else self.logits([f.detach() for f in features])
        confusion = self.logits([reverse_gradient(f, -strength) for f in features], frozen=True)
        return {"adversary": confusion.detach() if own is None else own, "confusion": confusion}
