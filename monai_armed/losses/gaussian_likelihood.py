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

from .likelihoods import LikelihoodLoss

__all__ = ["GaussianLikelihoodLoss"]


class GaussianLikelihoodLoss(LikelihoodLoss):
    """
    Mean negative log-likelihood of normal residuals whose s.d. is learned: the loss with which a linear network with
    random effects is a linear mixed model. Hand its parameters to the optimizer, too.

    Args:
        scale: residual s.d. at the start, in the unit of the target.

    Raises:
        ValueError: when ``scale`` is not positive.
    """

    family = "gaussian"

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        if scale <= 0:
            raise ValueError(f"scale must be positive, got {scale}.")
        self.log_scale = torch.nn.Parameter(torch.tensor(math.log(scale)))

    @property
    def scale(self) -> torch.Tensor:
        """Residual s.d."""
        return self.log_scale.exp()

    def log_prob(self, input: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        """Log-density of every label; a weight, as in R's lm, divides the residual's variance."""
        scale = self.scale if weight is None else self.scale / weight.sqrt()
        return torch.distributions.Normal(input, scale, validate_args=False).log_prob(target)
