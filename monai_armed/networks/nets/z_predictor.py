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

import torch
import torch.nn as nn
from scipy.optimize import minimize_scalar

from ..layers.feature_layers import first_tensor

__all__ = ["ZPredictor"]


class ZPredictor(nn.Module):
    """
    Z-predictor: a classifier that is trained to name the seen clusters and then tells of a sample of a new cluster
    which of them it is most like (Section 2.4 of https://arxiv.org/abs/2202.11783).

    It returns logits in training mode, for cross-entropy, and calibrated probabilities in evaluation mode: the soft
    assignment that :py:class:`ARMED` takes. Softmax is over-confident away from the data, so its temperature is fitted
    on held-out samples of seen clusters.

    Args:
        network: any module that maps the input to cluster logits (B, C).
        num_clusters: number of clusters C.

    Example:
        >>> z_predictor = ZPredictor(DFNN(4, out_channels=10, hidden_channels=(8, 8, 4)), num_clusters=10)
        >>> z_predictor.eval()(torch.rand(8, 4)).sum(dim=1)  # probabilities
    """

    temperature: torch.Tensor

    def __init__(self, network: nn.Module, num_clusters: int) -> None:
        super().__init__()
        self.network, self.num_clusters = network, num_clusters
        self.register_buffer("temperature", torch.tensor(1.0))

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Cluster logits (B, C) before the temperature, in any mode."""
        return first_tensor(self.network(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Cluster logits (B, C) in training mode, probabilities (B, C) in evaluation mode."""
        logits = self.logits(x)
        return logits if self.training else (logits.float() / self.temperature).softmax(dim=1)

    def calibrate(self, logits: torch.Tensor, cluster: torch.Tensor) -> float:
        """
        Fit the temperature to held-out samples of seen clusters (https://arxiv.org/abs/1706.04599): that with the
        largest likelihood.

        Args:
            logits: :py:meth:`logits` of the samples in evaluation mode, (N, C).
            cluster: their clusters, (N,); -1 where not known.

        Returns:
            the temperature, also kept: above 1 the softmax was over-confident.

        Raises:
            ValueError: when there is no sample of known cluster.
        """
        known = cluster >= 0
        if not bool(known.any()):
            raise ValueError("no held-out sample of a known cluster to calibrate the Z-predictor with.")
        held_out, target = logits[known].detach().cpu().double(), cluster[known].cpu()  # not all devices have double

        def loss(log_temperature: float) -> float:
            return nn.functional.cross_entropy(held_out / math.exp(log_temperature), target).item()

        fit = minimize_scalar(loss, bounds=(math.log(0.05), math.log(100)), method="bounded")
        self.temperature.fill_(math.exp(fit.x))
        return float(self.temperature)

    @staticmethod
    def entropy(probabilities: torch.Tensor) -> torch.Tensor:
        """Entropy of soft assignments (B, C) in units of ln(C): 0 sure of one cluster, 1 no idea; (B,)."""
        return torch.special.entr(probabilities).sum(dim=1) / math.log(probabilities.shape[1])
