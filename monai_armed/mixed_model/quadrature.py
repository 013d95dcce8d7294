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

"""Adaptive Gauss-Hermite quadrature for one random effect of one factor, where Laplace's approximation is too rough."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.optimize import minimize

from .design import Design
from .gpboost_fit import Estimate, Moments

__all__ = ["estimate_by_quadrature"]

NEWTON_STEPS = 50


def _log_density(likelihood: str, y: torch.Tensor, eta: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    if likelihood == "poisson":
        return weight * (y * eta - eta.exp() - torch.lgamma(y + 1))
    value = weight * (y * eta - torch.nn.functional.softplus(eta))
    if likelihood == "binomial":  # proportions of `weight` trials
        k = weight * y
        value = value + torch.lgamma(weight + 1) - torch.lgamma(k + 1) - torch.lgamma(weight - k + 1)
    return value


def _slopes(likelihood: str, y: torch.Tensor, eta: torch.Tensor, weight: torch.Tensor) -> tuple:
    """First derivative of the log-density by eta, and minus the second."""
    if likelihood == "poisson":
        return weight * (y - eta.exp()), weight * eta.exp()
    p = eta.sigmoid()
    return weight * (y - p), weight * p * (1 - p)


class _Quadrature:
    """Marginal log-likelihood of y given eta = offset + x beta + sd z v, with v of each cluster N(0, 1)."""

    def __init__(self, design: Design, likelihood: str, points: int) -> None:
        factor = design.factors[0]
        self.likelihood, self.num_clusters = likelihood, factor.num_clusters
        arrays = (design.y, design.x, design.offset, design.weight, factor.z[:, 0])
        self.y, self.x, self.offset, self.weight, self.z = (torch.as_tensor(a).double() for a in arrays)
        self.cluster = torch.as_tensor(factor.cluster)
        nodes, weights = np.polynomial.hermite_e.hermegauss(points)
        self.nodes = torch.as_tensor(nodes)
        self.log_weights = torch.as_tensor(np.log(weights) - math.log(2 * math.pi) / 2)
        self.mode = torch.zeros(self.num_clusters, dtype=torch.double)

    def _sum(self, values: torch.Tensor) -> torch.Tensor:
        shape = (self.num_clusters, *values.shape[1:])
        return torch.zeros(shape, dtype=torch.double).index_add(0, self.cluster, values)

    @torch.no_grad()
    def _find_mode(self, fixed: torch.Tensor, sd: torch.Tensor) -> torch.Tensor:
        """Newton's method for each cluster's v; returns the s.d. of the normal there."""
        z = self.z * sd

        def height(v: torch.Tensor) -> torch.Tensor:
            eta = fixed + z * v[self.cluster]
            return self._sum(_log_density(self.likelihood, self.y, eta, self.weight)) - v**2 / 2

        now = height(self.mode)
        for _ in range(NEWTON_STEPS):
            first, second = _slopes(self.likelihood, self.y, fixed + z * self.mode[self.cluster], self.weight)
            step = (self._sum(z * first) - self.mode) / (self._sum(z**2 * second) + 1)
            new = height(self.mode + step)
            while bool((new < now - 1e-10).any()):  # where it went too far
                step = torch.where(new < now - 1e-10, step / 2, step)
                new = height(self.mode + step)
            self.mode = self.mode + step
            now = new
            if float(step.abs().max()) < 1e-10:
                break
        second = _slopes(self.likelihood, self.y, fixed + z * self.mode[self.cluster], self.weight)[1]
        return (self._sum(z**2 * second) + 1).rsqrt()

    def log_likelihood(self, parameters: torch.Tensor) -> torch.Tensor:
        """Of the fixed effects and, last, the s.d.; nodes around the modes, which count as constants."""
        fixed, sd = self.offset + self.x @ parameters[:-1], parameters[-1]
        spread = self._find_mode(fixed.detach(), sd.detach())
        v = self.mode[:, None] + spread[:, None] * self.nodes  # (C, K)
        eta = fixed[:, None] + (self.z * sd)[:, None] * v[self.cluster]
        density = _log_density(self.likelihood, self.y[:, None], eta, self.weight[:, None])
        # the normal density of v, less that of the nodes, whose weights are for exp(-node^2 / 2)
        terms = self._sum(density) - v**2 / 2 + self.nodes**2 / 2 + self.log_weights
        return (terms.logsumexp(1) + spread.log()).sum()

    @torch.no_grad()
    def moments(self, parameters: torch.Tensor) -> Moments:
        """Mode and curvature of each cluster's effect, as lme4 gives them."""
        spread = self._find_mode(self.offset + self.x @ parameters[:-1], parameters[-1])
        sd = parameters[-1].abs()
        mean = (parameters[-1] * self.mode).numpy()[:, None]
        return Moments(mean, ((sd * spread) ** 2).numpy()[:, None, None])


def estimate_by_quadrature(
    design: Design, likelihood: str, start: Estimate, points: int
) -> tuple[Estimate, list[Moments]]:
    """
    Maximise the likelihood with one random effect integrated out by adaptive Gauss-Hermite quadrature.

    Args:
        design: a design of one factor with one effect.
        likelihood: ``"bernoulli"``, ``"binomial"`` or ``"poisson"``.
        start: Laplace's fit.
        points: number of nodes.

    Returns:
        the fit, and modes and curvatures of the effects.

    Raises:
        ValueError: when there are several effects, or the likelihood is another.
    """
    if len(design.factors) > 1 or design.factors[0].z.shape[1] > 1:
        raise ValueError("adaptive quadrature is for one random effect of one factor: use quadrature_points=1.")
    if likelihood not in ("bernoulli", "binomial", "poisson"):
        raise ValueError(f"adaptive quadrature is for binary labels and counts, not for {likelihood!r}.")
    model = _Quadrature(design, likelihood, points)
    scale = np.append(np.sqrt((design.x**2).mean(0)), 1.0)

    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.tensor(values / scale, requires_grad=True)
        loss = -model.log_likelihood(parameters)
        (gradient,) = torch.autograd.grad(loss, parameters)
        return loss.item(), gradient.numpy() / scale

    sd = max(float(np.sqrt(start.variances[0][0])), 0.1)
    found = minimize(objective, np.append(start.coefficients, sd) * scale, jac=True, method="BFGS")
    best = torch.tensor(found.x / scale)
    curvature = np.zeros((len(scale), len(scale)))
    for k in range(len(scale)):
        step = np.zeros(len(scale))
        step[k] = 1e-4
        curvature[k] = (objective(found.x + step)[1] - objective(found.x - step)[1]) / 2e-4
    errors = np.sqrt(np.diag(np.linalg.pinv((curvature + curvature.T) / 2)).clip(min=0)) / scale
    return (
        start._replace(
            variances=[np.array([best[-1].item() ** 2])],
            coefficients=best[:-1].numpy(),
            errors=errors[:-1],
            log_likelihood=-float(found.fun),
        ),
        [model.moments(best)],
    )
