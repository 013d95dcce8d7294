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
from torch.distributions import Binomial, NegativeBinomial, Normal, Poisson
from torch.nn.functional import logsigmoid
from torch.nn.modules.loss import _Loss

__all__ = [
    "BinomialLikelihoodLoss",
    "GaussianLikelihoodLoss",
    "LikelihoodLoss",
    "NegativeBinomialLikelihoodLoss",
    "OrdinalLikelihoodLoss",
    "PoissonLikelihoodLoss",
]


class LikelihoodLoss(_Loss):
    """
    Mean negative log-likelihood of labels given logits: inside :py:class:`monai_armed.losses.ARMEDLoss`, with
    ``lambda_kl=1 / N`` and ``lambda_fixed=0``, the objective is the negative evidence lower bound / N of a generalised
    mixed model. What has parameters of its own wants them in the optimizer, too.

    Attributes:
        family: what :py:func:`monai_armed.mixed_model.fit_mixed_model` calls the likelihood.
    """

    family: str

    def log_prob(self, input: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        """Log-density of every label, times its weight; same arguments as the call."""
        raise NotImplementedError

    def mean(self, input: torch.Tensor) -> torch.Tensor:
        """Mean of the labels that logits stand for, of the same shape: by default the logits themselves."""
        return input

    def forward(self, input: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            input: logits, or what the link function makes the mean of, (B, 1).
            target: labels, (B, 1) or (B,).
            weight: (B, 1) or (B,): how often a sample counts (of shares: the number of trials), by default once.

        Returns:
            sum of the weighted negative log-likelihoods over B, in nats.

        Raises:
            ValueError: when the shapes differ.
        """
        weight = None if weight is None else _like(input, "weight", weight)
        return -self.log_prob(input, _like(input, "target", target), weight).mean()


def _like(input: torch.Tensor, name: str, value: torch.Tensor) -> torch.Tensor:
    if value.shape == input.shape[:1] and input.shape[1:] == (1,):
        value = value.unsqueeze(1)
    if value.shape != input.shape:
        raise ValueError(f"the logits have shape {tuple(input.shape)} and the {name} {tuple(value.shape)}.")
    return value.to(input.dtype)


def _times(log_prob: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    return log_prob if weight is None else weight * log_prob


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
        return Normal(input, scale, validate_args=False).log_prob(target)


class BinomialLikelihoodLoss(LikelihoodLoss):
    """
    Shares of successes, of as many trials as the weight says; without weight it is the loss of binary labels. R:
    ``cbind(successes, failures) ~ ...``, or the share with ``weights``.
    """

    family = "binomial"

    def mean(self, input: torch.Tensor) -> torch.Tensor:
        """Probability of success."""
        return input.sigmoid()

    def log_prob(self, input: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        trials = torch.ones_like(input) if weight is None else weight
        return Binomial(trials, logits=input, validate_args=False).log_prob(trials * target)


class PoissonLikelihoodLoss(LikelihoodLoss):
    """Counts whose logarithmic mean the network gives; an offset is the logarithm of the exposure."""

    family = "poisson"

    def mean(self, input: torch.Tensor) -> torch.Tensor:
        """Mean count."""
        return input.exp()

    def log_prob(self, input: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        return _times(Poisson(input.exp(), validate_args=False).log_prob(target), weight)


class NegativeBinomialLikelihoodLoss(LikelihoodLoss):
    """
    Counts that vary more than Poisson's: variance mean + mean^2 / shape, with the shape learned.

    Args:
        shape: at the start.

    Raises:
        ValueError: when ``shape`` is not positive.
    """

    family = "negative_binomial"

    def __init__(self, shape: float = 1.0) -> None:
        super().__init__()
        if shape <= 0:
            raise ValueError(f"shape must be positive, got {shape}.")
        self.log_shape = torch.nn.Parameter(torch.tensor(math.log(shape)))

    def mean(self, input: torch.Tensor) -> torch.Tensor:
        """Mean count."""
        return input.exp()

    @property
    def shape(self) -> torch.Tensor:
        """Shape (R's theta)."""
        return self.log_shape.exp()

    def log_prob(self, input: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        counts = NegativeBinomial(self.shape, logits=input - self.log_shape, validate_args=False)
        return _times(counts.log_prob(target), weight)


class OrdinalLikelihoodLoss(LikelihoodLoss):
    """
    Ordered levels 0 to K - 1 by cumulative logits: P(level <= k) = sigmoid(threshold_k - logit), with one logit. The
    first threshold is 0, since the last layer has a bias; the others are learned.

    Args:
        num_levels: number of levels K.

    Raises:
        ValueError: when there are less than two.
    """

    family = "ordinal"

    def __init__(self, num_levels: int) -> None:
        super().__init__()
        if num_levels < 2:
            raise ValueError(f"num_levels must be at least 2, got {num_levels}.")
        self.log_gaps = torch.nn.Parameter(torch.zeros(num_levels - 2))

    @property
    def thresholds(self) -> torch.Tensor:
        """The K - 1 thresholds, from 0 upwards."""
        return torch.cat([self.log_gaps.new_zeros(1), self.log_gaps.exp().cumsum(0)])

    def log_prob(self, input: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        infinite = self.log_gaps.new_full((1,), math.inf)
        edges = torch.cat([-infinite, self.thresholds, infinite])
        level = target.long()
        wrong = target[(target != level) | (level < 0) | (level > len(self.thresholds))]
        if len(wrong):
            raise ValueError(
                f"levels must be whole numbers from 0 to {len(self.thresholds)}, got {float(wrong[0]):g}: R counts "
                "them from 1."
            )
        low, high = edges[level] - input, edges[level + 1] - input
        # sigmoid(high) - sigmoid(low) without a difference of numbers that are alike
        return _times(logsigmoid(high) + logsigmoid(-low) + torch.log1p(-(low - high).exp()), weight)

    def mean(self, input: torch.Tensor) -> torch.Tensor:
        """In place of a mean the probability of each level, (B, K), of logits (B, 1)."""
        below = (self.thresholds - input).sigmoid()
        return torch.nn.functional.pad(below, (0, 1), value=1.0).diff(dim=1, prepend=below.new_zeros(len(below), 1))
