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
from torch.nn.modules.loss import _Loss

from ..utils.cluster_index import can_look
from .cluster_losses import ClusterConfusionLoss, ClusterCrossEntropyLoss
from .likelihoods import LikelihoodLoss

__all__ = ["ARMEDLoss"]


class ARMEDLoss(_Loss):
    """
    Training objective of an ARMED network (Eq. 14 of https://arxiv.org/abs/2202.11783)::

        L_e(y, mixed) + lambda_fixed L_e(y, fixed) - lambda_adversary L_CCE(Z, cluster logits) + lambda_kl KL(q || p)

    The minus sign is in the network, whose gradient reversal lets the adversary minimise L_CCE and the features
    maximise it: here the term is added, and all weights are positive. (The adversary's own gradient is multiplied by
    ``lambda_adversary``, too, which with SGD wants a larger learning rate, or
    :py:class:`monai_armed.engines.ARMEDTrainer`.)

    Without random effects (domain adversarial network, Eq. 5) the fixed prediction has weight 1. A tensor in place of
    the dict, as a conventional network gives it, is compared by L_e alone.

    Args:
        loss: L_e, called with logits and label, such as ``torch.nn.BCEWithLogitsLoss()`` or ``monai.losses.DiceLoss``.
        lambda_fixed: weight of the fixed prediction's loss (lambda_F of Eq. 14).
        lambda_adversary: weight of the cluster generalisation loss (lambda_g of Eq. 5 and 14).
        lambda_kl: weight of the KL term (lambda_K of Eq. 8 and 14), which is a sum over all clusters and effects; of
            more than 1000 clusters it is estimated without bias. With a loss that is the mean negative log-likelihood
            of N training samples, ``lambda_fixed=0`` and no adversary, 1/N makes the objective the negative ELBO / N,
            and the model a (generalised) mixed model; ``lambda_fixed`` above 0 draws its fixed effects towards the
            marginal ones.
        adversary_loss: L_CCE; by default categorical cross-entropy.
        confusion_loss: bounded objective of the features for a network with ``confusion=True``, whose weight is then
            ``lambda_adversary``; by default cross-entropy against uniform.

    Raises:
        ValueError: when a weight is negative.

    Example:
        >>> loss = ARMEDLoss(torch.nn.BCEWithLogitsLoss(), lambda_adversary=0.5, lambda_kl=1 / 482)
        >>> loss(net(images, cluster), {"label": label, "cluster": cluster})
    """

    stateless = True  # whether it depends on nothing but what it is called with, so that folds can be stacked

    def __init__(
        self,
        loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        lambda_fixed: float = 1.0,
        lambda_adversary: float = 0.1,
        lambda_kl: float = 1e-3,
        adversary_loss: ClusterCrossEntropyLoss | None = None,
        confusion_loss: ClusterConfusionLoss | None = None,
    ) -> None:
        super().__init__()
        self.weights = {"fixed": lambda_fixed, "adversary": lambda_adversary, "kl": lambda_kl}
        for name, weight in self.weights.items():
            if weight < 0:
                raise ValueError(f"lambda_{name} must not be negative, got {weight}: the signs are taken care of.")
        self.loss = loss
        self.adversary_loss = ClusterCrossEntropyLoss() if adversary_loss is None else adversary_loss
        self.confusion_loss = ClusterConfusionLoss() if confusion_loss is None else confusion_loss
        self.kl_strength = 1.0

    def set_kl_strength(self, strength: float) -> None:
        """Factor of the KL term between 0 and 1, for its warm-up in the first epochs."""
        if strength < 0:
            raise ValueError(f"strength must not be negative, got {strength}.")
        self.kl_strength = strength

    def _error_of(self, logits: torch.Tensor, target: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """L_e with the target's offset and weight, if it has them."""
        offset, weight = target.get("offset"), target.get("weight")
        if offset is not None:
            logits = logits + offset.reshape(len(offset), *(1,) * (logits.ndim - 1))
        if weight is None:
            return self.error(logits, target["label"])
        if not isinstance(self.loss, LikelihoodLoss):
            raise ValueError(
                f"{type(self.loss).__name__} takes no weights: use a loss of monai_armed.losses that is a likelihood, "
                "such as BinomialLikelihoodLoss, or leave the weight out of the targets."
            )
        return self.loss(logits, target["label"], weight)

    def error(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """L_e of logits, (B, K, ...), and label, as it wants it; or (B,) of one logit, (B, 1, ...) of cross-entropy."""
        if logits.shape[1] == 1 and label.ndim == logits.ndim - 1:
            label = label.unsqueeze(1)
        elif isinstance(self.loss, (torch.nn.CrossEntropyLoss, torch.nn.NLLLoss)):
            if label.ndim == logits.ndim and label.shape[1] == 1 < logits.shape[1]:  # as MONAI's transforms give it
                label = label.squeeze(1)
            if label.ndim == logits.ndim - 1:
                label = label.long()
        if logits.shape == label.shape:
            label = label.to(logits.dtype)
        return self.loss(logits, label)

    def terms(
        self, pred: Mapping[str, torch.Tensor] | torch.Tensor, target: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """
        The terms by name, each without its weight: ``"mixed"``, ``"fixed"``, ``"adversary"`` and ``"confusion"`` (in
        nats), ``"kl"`` (in nats); those that ``pred`` has.

        Args:
            pred: an ARMED network's training output, or a tensor of logits.
            target: ``"label"``, as ``loss`` wants it, or (B,) for one logit; ``"cluster"``, index (B,), of several
                factors that of the network's first. If there, ``"offset"`` (B,) is added to the logits, and
                ``"weight"`` (B,) goes to ``loss``, a :py:class:`monai_armed.losses.LikelihoodLoss`.

        Raises:
            ValueError: when the target lacks one of them, or has the clusters of several factors.
        """
        adversarial = isinstance(pred, Mapping) and "adversary" in pred
        wanted = {"label", "cluster"} if adversarial else {"label"}
        if not isinstance(target, Mapping) or not wanted <= set(target):
            raise ValueError(
                f"the target must be a dict with {sorted(wanted)}: give the trainer "
                "prepare_batch=monai_armed.engines.PrepareBatchCluster()."
            )
        if adversarial and isinstance(target["cluster"], Mapping):
            raise ValueError(
                "the adversary guesses one factor, the network's first: give the target the index of that one, such as "
                '{"label": label, "cluster": cluster["site"]}.'
            )
        label = target["label"]
        if isinstance(pred, torch.Tensor):
            return {"fixed": self._error_of(pred, target)}
        terms = {name: self._error_of(pred[name], target) for name in ("mixed", "fixed") if name in pred}
        if "adversary" in pred:
            terms["adversary"] = self.adversary_loss(pred["adversary"], target["cluster"], label)
        if "confusion" in pred:
            terms["confusion"] = self.confusion_loss(pred["confusion"], label)
        if "kl" in pred:
            kl = pred["kl"]
            terms["kl"] = kl.mean() if kl.ndim else kl  # DataParallel gathers a number of each device
        return terms

    def _weights_of(self, terms: Mapping[str, torch.Tensor]) -> dict[str, float]:
        return {
            "mixed": 1.0,
            "fixed": self.weights["fixed"] if "mixed" in terms else 1.0,
            "adversary": self.weights["adversary"],
            "confusion": self.weights["adversary"],
            "kl": self.weights["kl"] * self.kl_strength,
        }

    def total(self, terms: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """
        Weighted sum of the terms; a scalar.

        Raises:
            ValueError: when it is not finite while training, before it can spoil the weights.
        """
        weights = self._weights_of(terms)
        total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        if total.requires_grad and can_look(total) and not math.isfinite(total.item()):
            values = ", ".join(f"{name} {term.item():.3g}" for name, term in terms.items())
            raise ValueError(
                f"the loss is {total.item()} ({values}): lower the learning rate or lambda_adversary, from which "
                "training diverges, or look for values that are not finite in the images and labels."
            )
        return total

    def forward(
        self, pred: Mapping[str, torch.Tensor] | torch.Tensor, target: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """Total of :py:meth:`terms`, a scalar; same arguments."""
        return self.total(self.terms(pred, target))
