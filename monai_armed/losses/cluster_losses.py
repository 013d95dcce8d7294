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

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch.nn.modules.loss import _Loss

from ..utils.cluster_index import can_look, check_index

__all__ = ["ClusterConfusionLoss", "ClusterCrossEntropyLoss", "ZPredictorLoss"]


def _for_class(logits: torch.Tensor, label: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Cluster logits (B, C) of a class-conditional adversary's (B, C, classes), for the class of each sample; and which
    samples count (B,): of such an adversary those whose class is known, which is not -1.
    """
    if logits.ndim == 2:
        return logits, torch.ones(len(logits), dtype=torch.bool, device=logits.device)
    if label is None or label.numel() != logits.shape[0]:
        raise ValueError("a class-conditional adversary needs one class label for each sample.")
    classes = logits.shape[2]
    label = label.long() if label.dtype == torch.bool else label  # bool cannot be rounded
    if can_look(label) and bool((label >= classes).any()):
        raise ValueError(
            f"class label {label.max().item():g} is out of range: the adversary was built with num_classes={classes}, "
            f"whose labels are 0 to {classes - 1}, and -1 where not known."
        )
    if label.is_floating_point() and can_look(label) and bool(((label != label.round()) & ~label.isnan()).any()):
        raise ValueError(
            "a class-conditional adversary needs classes, but labels have fractions: leave num_classes out, or smooth "
            "labels inside the base loss."
        )
    known = label.reshape(-1) >= 0
    index = label.reshape(-1, 1, 1).long().clamp(min=0).expand(-1, logits.shape[1], 1)
    return torch.take_along_dim(logits, index, dim=2).squeeze(2), known


class ClusterCrossEntropyLoss(_Loss):
    """
    How badly the adversary names the cluster, in nats; ln(C) is chance where clusters are of one size. Samples of
    unknown cluster (-1) do not count.

    Args:
        kind: ``"categorical"``, cross-entropy of the softmax, or ``"binary"``, the sum over clusters of binary
            cross-entropies that Eq. 4 of https://arxiv.org/abs/2202.11783 prints.

    Raises:
        ValueError: when ``kind`` is neither.
    """

    def __init__(self, kind: str = "categorical") -> None:
        super().__init__()
        if kind not in ("categorical", "binary"):
            raise ValueError(f"kind must be 'categorical' or 'binary', got {kind!r}.")
        self.kind = kind

    def forward(self, logits: torch.Tensor, cluster: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            logits: (B, C), or (B, C, classes) of a class-conditional adversary.
            cluster: index (B,), -1 where not known.
            label: class index (B,) or (B, 1), -1 where not known; for a class-conditional adversary, with which
                samples of unknown class do not count.

        Raises:
            ValueError: when a cluster or class is out of the adversary's range, or a class is no whole number.
        """
        cluster = cluster.long()  # pandas' codes are int8, of which cross_entropy knows nothing
        check_index(cluster, logits.shape[1], owner="the adversary has")
        logits, counted = _for_class(logits, label)
        known = counted & (cluster >= 0)
        if self.kind == "categorical":
            loss = F.cross_entropy(logits, cluster.clamp(min=0), reduction="none")
        else:
            one_hot = F.one_hot(cluster.clamp(min=0), logits.shape[1]).to(logits.dtype)
            loss = F.binary_cross_entropy_with_logits(logits, one_hot, reduction="none").sum(dim=1)
        return (loss * known).sum() / known.sum().clamp(min=1)


class ClusterConfusionLoss(_Loss):
    """
    How far a frozen adversary's opinion of the cluster is from no opinion: zero, its minimum, where it says the same
    for every cluster. A bounded alternative to maximising the cross-entropy of Eq. 5, which has no maximum.

    Args:
        kind: ``"uniform"``, cross-entropy against the uniform distribution (https://arxiv.org/abs/1510.02192), less
            ln(C); or ``"entropy"``, ln(C) less the entropy, which is at most ln(C).

    Raises:
        ValueError: when ``kind`` is neither.
    """

    def __init__(self, kind: str = "uniform") -> None:
        super().__init__()
        if kind not in ("uniform", "entropy"):
            raise ValueError(f"kind must be 'uniform' or 'entropy', got {kind!r}.")
        self.kind = kind

    def forward(self, logits: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            logits: (B, C), or (B, C, classes) of a class-conditional adversary.
            label: class index (B,) or (B, 1), -1 where not known; for a class-conditional adversary, with which
                samples of unknown class do not count.
        """
        logits, counted = _for_class(logits, label)
        log_p = F.log_softmax(logits, dim=1)
        chance = math.log(log_p.shape[1])
        if self.kind == "uniform":
            loss = -log_p.mean(dim=1) - chance
        else:
            loss = chance + (log_p.exp() * log_p).sum(dim=1)
        return (loss * counted).sum() / counted.sum().clamp(min=1)


class ZPredictorLoss(_Loss):
    """
    Loss of a Z-predictor in MONAI's trainers, whose targets hold the label beside the cluster.

    Args:
        loss: called with cluster logits and the cluster; by default the cross-entropy, in which samples of no known
            cluster do not count.
    """

    def __init__(self, loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None) -> None:
        super().__init__()
        self.loss = torch.nn.CrossEntropyLoss(ignore_index=-1) if loss is None else loss

    def forward(self, logits: torch.Tensor, target: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """
        Args:
            logits: cluster logits (B, C).
            target: ``"cluster"``, index (B,), -1 where not known.
        """
        return self.loss(logits, target["cluster"].long())
