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

"""Moments of random effects that count the variance components as unknown, too.

Few clusters tell little of the variance components, and their best value may be 0, where every effect is 0 and surely
so. The moments are therefore averaged over what the components can be: over their posterior with the likelihood that
was maximised and a flat prior on every s.d. and correlation (Gelman 2006, https://doi.org/10.1214/06-BA117A), by
importance sampling around its mode from a multivariate t (Section 10.4 of Gelman et al., Bayesian Data Analysis).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.stats import chi2, multivariate_t, norm, qmc

from .design import Design
from .marginal import Estimate, MarginalLikelihood, Moments
from .standard_errors import MOST, component_values, free_components, hessian, moved

__all__ = ["FEW_CLUSTERS", "with_component_errors"]

FEW_CLUSTERS = 200  # with more the components are known well enough
DRAWS = 64  # of the components
DEGREES = 4  # of freedom of what they are drawn from
STEP, SMALL = 0.1, 1e-4  # of what is scaled to be of size 1: for the likelihood's curvature, and for the prior
LOWEST = -1e10  # log density of components that are none
SMALLEST = 0.05  # share of the largest s.d. from which the search for the mode starts
NEGLIGIBLE = 1e-3  # weight, in shares of a draw's, below which a draw is passed over


def with_component_errors(
    design: Design, marginal: MarginalLikelihood, fit: Estimate, given: Sequence[Moments]
) -> list[Moments]:
    """
    Moments of the random effects that count fixed effects and variance components as unknown.

    Args:
        design: the design.
        marginal: the likelihood that was maximised.
        fit: the fit.
        given: moments with the components as they are, and the fixed effects unknown.

    Returns:
        the moments; those given where every factor has more than :py:data:`FEW_CLUSTERS` clusters, there are more than
        :py:data:`monai_armed.mixed_model.standard_errors.MOST` components, or their posterior has no mode.
    """
    start = _from_zero(design, fit)
    free = free_components(design, start)
    few = min(len(np.unique(factor.cluster)) for factor in design.factors) <= FEW_CLUSTERS
    if not few or not free or len(free) > MOST:
        return list(given)
    theta, scale = component_values(design, start, free)

    def at(change: np.ndarray) -> Estimate:
        return moved(start, free, theta + change * scale)

    def density(change: np.ndarray) -> float:
        with np.errstate(over="ignore", invalid="ignore"):
            value = marginal.profile(design, at(change))[0] + _log_prior(design, at, change)
        return float(value) if np.isfinite(value) else LOWEST

    drawn = _draws(density, len(free))
    if drawn is None:
        return list(given)
    found = [marginal.moments(design, at(change)) for change, _ in drawn]
    return [_mixed([each[k] for each in found], np.array([weight for _, weight in drawn])) for k in range(len(given))]


def _from_zero(design: Design, fit: Estimate) -> Estimate:
    """
    The fit; but the effects of a factor whose covariance matrix is singular are apart, and none of their s.d. is 0: the
    search could not leave such a place, as the first one's variance is in all others', by entries of L that are large.
    """
    sizes = [(factor.z**2).mean(0).clip(min=1e-24) for factor in design.factors]
    largest = max([*(float((v * s).max()) for v, s in zip(fit.variances, sizes)), (fit.residual or 1.0) ** 2])
    lower, variances = list(fit.lower), list(fit.variances)
    for k, (size, covariance) in enumerate(zip(sizes, fit.covariances)):
        floor = SMALLEST**2 * largest / size
        if (variances[k] < floor).any():
            lower[k], variances[k] = np.eye(len(size)), np.maximum(np.diag(covariance), floor)
    return fit._replace(lower=lower, variances=variances)


def _log_prior(design: Design, at: Callable[[np.ndarray], Estimate], change: np.ndarray) -> float:
    """Log density of the standardised components where every s.d. and correlation has a flat one, up to a constant."""

    def natural(x: np.ndarray) -> np.ndarray:
        now = at(x)
        values = [] if now.residual is None else [np.log(now.residual)]
        for factor, covariance in zip(design.factors, now.covariances):
            sd = np.sqrt(np.diag(covariance))
            values += list(sd)
            if factor.correlated:
                values += list((covariance / np.outer(sd, sd))[np.tril_indices(len(sd), -1)])
        return np.array(values)

    steps = SMALL * np.eye(len(change))
    jacobian = np.stack([natural(change + step) - natural(change - step) for step in steps]) / (2 * SMALL)
    return float(np.linalg.slogdet(jacobian)[1])


def _draws(density: Callable[[np.ndarray], float], count: int) -> list[tuple[np.ndarray, float]] | None:
    """Components drawn from their posterior, and the weight of each."""
    found = minimize(
        lambda x: -density(x), np.zeros(count), method="BFGS", options={"eps": 1e-3, "gtol": 0.05, "maxiter": 30}
    )
    curvature = hessian(density, found.x, STEP)
    if np.linalg.eigvalsh(curvature).min() <= 0:
        return None
    covariance = np.linalg.inv(curvature)
    uniform = qmc.Sobol(count + 1, seed=0).random(DRAWS).clip(1e-9, 1 - 1e-9)
    normal = norm.ppf(uniform[:, :count]) / np.sqrt(chi2.ppf(uniform[:, count:], DEGREES) / DEGREES)
    changes = found.x + normal @ np.linalg.cholesky(covariance).T
    logs = np.array([density(change) for change in changes])
    logs -= multivariate_t(found.x, covariance, DEGREES).logpdf(changes)
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    return [(change, weight) for change, weight in zip(changes, weights) if weight > NEGLIGIBLE / DRAWS]


def _mixed(found: Sequence[Moments], weights: np.ndarray) -> Moments:
    """Moments of a mixture."""
    weights = weights / weights.sum()
    means, covariances = np.stack([m.mean for m in found]), np.stack([m.covariance for m in found])
    mean = np.einsum("s,scq->cq", weights, means)
    shift = means - mean
    between = np.einsum("s,sci,scj->cij", weights, shift, shift)
    return Moments(mean, np.einsum("s,scij->cij", weights, covariances) + between)
