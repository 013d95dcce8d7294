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

"""Losses that heed the clusters' risks apart: what users take in place of an adversary."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch.func import vmap

from ..utils.cluster_index import check_index
from .armed_loss import ARMEDLoss

__all__ = ["GroupDROLoss", "VRExLoss"]


class _GroupRisksLoss(ARMEDLoss):
    """
    :py:class:`ARMEDLoss` whose L_e is, in training, made of the mean loss of each group in the batch. Groups are
    clusters, or classes within clusters; samples of no known cluster are a cluster of their own. Without a gradient to
    be taken, in validation, L_e is what it is in ``ARMEDLoss``, so that the same rule selects among all trainings.

    The loss is taken one sample at a time and then averaged, so that no shape depends on the data.
    """

    def __init__(self, loss: Any, num_clusters: int, num_classes: int = 0, **kwargs: Any) -> None:
        super().__init__(loss, **kwargs)
        if num_clusters < 2:
            raise ValueError(f"num_clusters must be at least 2, got {num_clusters}: with one there is no worst.")
        if num_classes < 0:
            raise ValueError(f"num_classes must not be negative, got {num_classes}: 0 groups by cluster alone.")
        self.num_clusters, self.num_classes = num_clusters, num_classes
        self.num_groups = (num_clusters + 1) * max(1, num_classes)

    def _groups(self, target: Mapping[str, torch.Tensor]) -> torch.Tensor:
        if "cluster" not in target:
            raise ValueError(f"{type(self).__name__} needs the clusters: use PrepareBatchCluster in the trainer.")
        cluster = target["cluster"]
        check_index(cluster, self.num_clusters, owner="the loss has")
        group = torch.where(cluster < 0, self.num_clusters, cluster)
        if self.num_classes:
            group = group * self.num_classes + target["label"].reshape(len(group)).long()
        return group.unsqueeze(-1) == torch.arange(self.num_groups, device=group.device)  # as one_hot cannot under vmap

    def _error_of(self, logits: torch.Tensor, target: Mapping[str, torch.Tensor]) -> torch.Tensor:
        if not logits.requires_grad:
            return super()._error_of(logits, target)
        plain = super()._error_of
        part = {name: target[name] for name in ("label", "offset", "weight") if target.get(name) is not None}

        def of_one(logit: torch.Tensor, known: dict[str, torch.Tensor]) -> torch.Tensor:
            return plain(logit[None], {name: value[None] for name, value in known.items()})

        member = self._groups(target).to(logits.dtype)
        count = member.sum(dim=0)
        return self._joined(vmap(of_one)(logits, part) @ member / count.clamp(min=1), count > 0)

    @abstractmethod
    def _joined(self, risks: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """The objective from the groups' mean losses (G,) and whether the batch has samples of them (G,)."""


class GroupDROLoss(_GroupRisksLoss):
    """
    The worst groups count most (Sagawa et al. 2020, https://arxiv.org/abs/1911.08731): each group's weight grows by
    exp(step_size * its mean loss) whenever it is in a batch, and the loss is the mean over the batch's groups with
    these weights.

    Args:
        loss: L_e, a mean over samples.
        num_clusters: number of clusters C.
        num_classes: if above 0 groups are the classes within the clusters, as in the paper; else the clusters.
        step_size: how fast weights grow.
        kwargs: further arguments of :py:class:`ARMEDLoss`.

    The weights are a buffer, to be saved with the training (``objects={"loss": loss}`` of
    :py:class:`monai_armed.handlers.TrainingCheckpoint`); each of several processes has its own.

    Raises:
        ValueError: when a number is out of its range.

    Example:
        >>> loss = GroupDROLoss(torch.nn.BCEWithLogitsLoss(), num_clusters=12, num_classes=2)
        >>> loss(net(images), {"label": label, "cluster": cluster})
    """

    log_weight: torch.Tensor
    stateless = False

    def __init__(
        self, loss: Any, num_clusters: int, num_classes: int = 0, step_size: float = 0.01, **kwargs: Any
    ) -> None:
        super().__init__(loss, num_clusters, num_classes, **kwargs)
        if step_size <= 0:
            raise ValueError(f"step_size must be positive, got {step_size}.")
        self.step_size = step_size
        self.register_buffer("log_weight", torch.zeros(self.num_groups))

    def _joined(self, risks: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        grown = self.log_weight.to(risks) + self.step_size * risks.detach() * present
        self.log_weight = grown - grown.logsumexp(dim=0)
        return risks @ grown.masked_fill(~present, -torch.inf).softmax(dim=0)


class VRExLoss(_GroupRisksLoss):
    """
    The variance of the clusters' risks is added to their mean (V-REx, Krueger et al. 2021,
    https://arxiv.org/abs/2003.00688).

    Args:
        loss: L_e, a mean over samples.
        num_clusters: number of clusters C.
        penalty: weight of the variance.
        kwargs: further arguments of :py:class:`ARMEDLoss`.

    Raises:
        ValueError: when a number is out of its range.

    Example:
        >>> loss = VRExLoss(torch.nn.BCEWithLogitsLoss(), num_clusters=12)
        >>> loss(net(images), {"label": label, "cluster": cluster})
    """

    def __init__(self, loss: Any, num_clusters: int, penalty: float = 1.0, **kwargs: Any) -> None:
        super().__init__(loss, num_clusters, **kwargs)
        if penalty < 0:
            raise ValueError(f"penalty must not be negative, got {penalty}.")
        self.penalty = penalty

    def _joined(self, risks: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        count = present.sum().clamp(min=1)
        mean = (risks * present).sum() / count
        return mean + self.penalty * ((risks - mean).square() * present).sum() / count
