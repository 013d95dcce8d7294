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

"""What a mixed model's likelihood answers once the random effects are integrated out, however that is done."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from .design import Design

__all__ = ["Estimate", "Held", "MarginalLikelihood", "Moments", "ThetaCurvature"]


class Estimate(NamedTuple):
    """A fit: unit lower triangles and variances of each factor, fixed effects and their s.e., log-likelihood."""

    lower: list[np.ndarray]
    variances: list[np.ndarray]
    coefficients: np.ndarray
    errors: np.ndarray
    residual: float | None  # s.d.
    shape: float | None  # of a negative binomial distribution
    log_likelihood: float

    @property
    def covariances(self) -> list[np.ndarray]:
        """Covariance matrix (Q, Q) of each factor's effects."""
        return [low @ np.diag(variance) @ low.T for low, variance in zip(self.lower, self.variances)]


class Held(NamedTuple):
    """What a fit must keep: the s.d. of a factor's first effect, or of the residual (None); and where it starts."""

    factor: int | None
    sd: float
    near: Estimate


class Moments(NamedTuple):
    """Of one factor: means (C, Q) of its effects given the data, and their covariances (C, Q, Q)."""

    mean: np.ndarray
    covariance: np.ndarray


class ThetaCurvature(NamedTuple):
    """Covariance (K, K) of theta, and the slope (P, K) of the fixed effects along it; the start and what it means."""

    covariance: np.ndarray
    slope: np.ndarray
    theta: np.ndarray
    free: list[tuple[str, int, tuple]]


class MarginalLikelihood(Protocol):
    """
    The likelihood of a design's labels: by Laplace's approximation or exactly (GPBoost), or by quadrature.
    ``family`` is the labels' distribution, ``points`` the number of nodes an effect, 1 without quadrature.
    """

    @property
    def family(self) -> str:
        """Distribution of the labels, such as ``"bernoulli"``."""

    @property
    def points(self) -> int:
        """Nodes of the quadrature for each effect; 1 without."""

    def estimate(self, design: Design, held: Held | None = None) -> Estimate:
        """Maximise it, apart from what is held; the standard errors are those given the variance components."""

    def profile(self, design: Design, fit: Estimate) -> tuple[float, np.ndarray]:
        """Log-likelihood with the variance components of ``fit`` and the fixed effects best then, and these."""

    def curvature(self, design: Design, fit: Estimate) -> ThetaCurvature | None:
        """How well the variance components are known at a fit; None where it is no maximum, or they are too many."""

    def modes(self, design: Design, fit: Estimate) -> list[Moments]:
        """Every cluster's effects where their density given the data and the fit is highest, and its curvature."""

    def moments(self, design: Design, fit: Estimate) -> list[Moments]:
        """Mean and covariance of every cluster's effects given the data, with the fixed effects unknown."""
