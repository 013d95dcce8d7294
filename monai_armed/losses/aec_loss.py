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

import torch
import torch.nn.functional as F

from .armed_loss import ARMEDLoss
from .cluster_losses import ClusterCrossEntropyLoss

__all__ = ["AECLoss"]


class AECLoss(ARMEDLoss):
    """
    Training objective of an :py:class:`monai_armed.networks.nets.ARMEDAEC` (Eq. S5 of
    https://arxiv.org/abs/2202.11783)::

        L_MSE(x, fixed reconstruction) + L_MSE(x, mixed reconstruction)
        + lambda_class (L_BCE(y, fixed) + L_BCE(y, mixed)) + lambda_kl KL(q || p)
        + lambda_cluster (L_CCE(Z, Z_L) + L_CCE(Z, Z_I) + L_CCE(Z, Z_X)) - lambda_adversary L_CCE(Z, Z_A)

    with Z_L and Z_I the clusters that are read from the latent of the random effects and from the reconstruction with
    them, and Z_X that read from the real image, which alone trains the image classifier. Eq. S5 has weights of their
    own for the fixed and the mixed terms and for Z_L and Z_I, which are one here. As in :py:class:`ARMEDLoss` the minus
    sign is in the network, and all weights are positive.

    Args:
        lambda_class: weight of the phenotype's binary cross-entropy; cells without a label (-1) do not count.
        lambda_adversary: weight of the cluster generalisation loss (lambda_g).
        lambda_cluster: weight of each cross-entropy of the latent-cluster and of the image-cluster classifier (lambda_L
            and lambda_I).
        lambda_kl: weight of the KL term (lambda_K), which is a sum over all layers, clusters and effects.
        kwargs: ``adversary_loss`` and ``confusion_loss`` of :py:class:`ARMEDLoss`.

    Raises:
        ValueError: when a weight is negative.
    """

    def __init__(
        self,
        lambda_class: float = 0.01,
        lambda_adversary: float = 0.1,
        lambda_cluster: float = 0.001,
        lambda_kl: float = 1e-7,
        **kwargs,
    ) -> None:
        super().__init__(_labelled_cross_entropy, 1.0, lambda_adversary, lambda_kl, **kwargs)
        for name, weight in (("class", lambda_class), ("cluster", lambda_cluster)):
            if weight < 0:
                raise ValueError(f"lambda_{name} must not be negative, got {weight}: the signs are taken care of.")
        self.lambda_class, self.lambda_cluster = lambda_class, lambda_cluster
        self.cluster_loss = ClusterCrossEntropyLoss()

    def terms(
        self, pred: Mapping[str, torch.Tensor] | torch.Tensor, target: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """
        The terms by name, each without its weight: those of :py:meth:`ARMEDLoss.terms`, the mean squared errors
        ``"fixed_reconstruction"`` and ``"mixed_reconstruction"``, and in nats the cross-entropies of the cluster that
        is read from the latent, ``"latent_cluster"``, from the real image, ``"image_cluster"``, and from the
        reconstruction, ``"reconstruction_cluster"``; those that ``pred`` has. Samples of unknown cluster (-1) do not
        count in these.

        Args:
            pred: the network's training output.
            target: ``"image"``, (B, channels, size, size); ``"label"``, (B,); ``"cluster"``, index (B,).
        """
        terms = super().terms(pred, target)
        assert isinstance(pred, Mapping)
        for name in ("fixed_reconstruction", "mixed_reconstruction"):
            if name in pred:
                terms[name] = F.mse_loss(pred[name], target["image"])
        for name in ("latent_cluster", "image_cluster", "reconstruction_cluster"):
            if name in pred:
                terms[name] = self.cluster_loss(pred[name], target["cluster"])
        return terms

    def _weights_of(self, terms: Mapping[str, torch.Tensor]) -> dict[str, float]:
        own = dict.fromkeys(("fixed_reconstruction", "mixed_reconstruction"), 1.0)
        own |= dict.fromkeys(("fixed", "mixed"), self.lambda_class)
        own |= dict.fromkeys(("latent_cluster", "image_cluster", "reconstruction_cluster"), self.lambda_cluster)
        return super()._weights_of(terms) | own


def _labelled_cross_entropy(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy over the samples with a label, which is not -1; zero if there is none."""
    known = label >= 0
    loss = F.binary_cross_entropy_with_logits(logits, label.clamp(min=0), reduction="none")
    return (loss * known).sum() / known.sum().clamp(min=1)
