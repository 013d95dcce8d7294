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
from torch.nn.modules.loss import _Loss

__all__ = ["GaussianLikelihoodLoss"]


class GaussianLikelihoodLoss(_Loss):
    """
    Mean negative log-likelihood of normal residuals whose s.d. is learned: the loss with which a linear network with
    random effects is a linear mixed model. Hand its parameters to the optimizer, too.

    Args:
        scale: residual s.d. at the start, in the unit of the target.

    Raises:
        ValueError: when ``scale`` is not positive.
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        if scale <= 0:
            raise ValueError(f"scale must be positive, got {scale}.")
        self.log_scale = torch.nn.Parameter(torch.tensor(math.log(scale)))

    @property
    def scale(self) -> torch.Tensor:
        """Residual s.d."""
        return self.log_scale.exp()

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """
        Loss in nats of predictions and targets of the same shape; a target (B,) is that of predictions (B, 1).

        Raises:
            ValueError: when the shapes differ.
        """
        if target.shape == input.shape[:1] and input.shape[1:] == (1,):
            target = target.unsqueeze(1)
        if target.shape != input.shape:
            shapes = tuple(input.shape), tuple(target.shape)
            raise ValueError(f"predictions are of shape {shapes[0]} and targets of {shapes[1]}: give both the same.")
        return -torch.distributions.Normal(input, self.scale, validate_args=False).log_prob(target).mean()
