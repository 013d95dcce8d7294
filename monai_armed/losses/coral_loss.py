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

import torch

from ..networks.layers.channel_dims import channels_first, sequence_dim
from ..networks.layers.feature_layers import find_layer, first_tensor
from .armed_loss import ARMEDLoss

__all__ = ["CORALLoss"]


class CORALLoss(ARMEDLoss):
    """
    :py:class:`ARMEDLoss` that besides draws together the clusters' means and covariances of a layer's features (deep
    CORAL, Sun and Saenko 2016, https://arxiv.org/abs/1607.01719, of many domains: the mean over pairs of clusters)::

        L_e + penalty (mean_ab ||m_a - m_b||^2 / D + mean_ab ||S_a - S_b||^2 / D^2)

    A cluster counts with two samples in the batch at least. The term is ``"coral"`` among the others.

    Args:
        loss: L_e.
        network: the network, or what it wraps, whose layer is read by a forward hook.
        layer: name of the layer; of maps the mean over space counts, and that over tokens.
        num_clusters: number of clusters C.
        penalty: weight of the term.
        kwargs: further arguments of :py:class:`ARMEDLoss`.

    Raises:
        ValueError: when the network has no such layer, or a number is out of its range.

    Example:
        >>> loss = CORALLoss(torch.nn.BCEWithLogitsLoss(), net, "features", num_clusters=12)
        >>> loss(net(images), {"label": label, "cluster": cluster})
    """

    stateless = False  # it reads the layer of one network

    def __init__(
        self,
        loss: Any,
        network: torch.nn.Module,
        layer: str,
        num_clusters: int,
        penalty: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(loss, **kwargs)
        if penalty < 0:
            raise ValueError(f"penalty must not be negative, got {penalty}.")
        self.weights["coral"], self.num_clusters = penalty, num_clusters
        self._features: torch.Tensor | None = None
        find_layer(network, layer).register_forward_hook(self._keep)

    def _keep(self, module: torch.nn.Module, args: tuple, output: Any) -> None:
        features = first_tensor(output)
        if features.ndim == 3:
            features = channels_first(features, sequence_dim(module))
        self._features = features if features.requires_grad else None

    def terms(
        self, pred: Mapping[str, torch.Tensor] | torch.Tensor, target: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """
        As :py:meth:`ARMEDLoss.terms`, and ``"coral"`` where the network has just been run with gradients.

        Raises:
            ValueError: besides, when the target lacks the clusters.
        """
        terms, features, self._features = super().terms(pred, target), self._features, None
        if features is not None:
            if "cluster" not in target:
                raise ValueError("CORALLoss needs the clusters: use PrepareBatchCluster in the trainer.")
            terms["coral"] = self._distance(features.flatten(2).mean(2) if features.ndim > 2 else features, target)
        return terms

    def _weights_of(self, terms: Mapping[str, torch.Tensor]) -> dict[str, float]:
        return {**super()._weights_of(terms), "coral": self.weights["coral"]}

    def _distance(self, features: torch.Tensor, target: Mapping[str, torch.Tensor]) -> torch.Tensor:
        means, covariances = [], []
        for cluster in range(self.num_clusters):
            own = features[target["cluster"] == cluster]
            if len(own) > 1:
                means.append(own.mean(dim=0))
                covariances.append(own.T.cov())
        if len(means) < 2:
            return features.sum() * 0.0
        # the mean square of the differences between pairs is twice the (unbiased) variance
        return sum(
            (2 * torch.stack(part).var(dim=0).mean() for part in (means, covariances)), torch.zeros(()).to(features)
        )
