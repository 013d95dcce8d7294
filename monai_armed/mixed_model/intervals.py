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

"""Intervals of variance components: by the profile of the likelihood, by its curvature (Wald), or by simulation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import norm

from .design import Design
from .marginal import Estimate, Held, MarginalLikelihood
from .standard_errors import moved, reordered

__all__ = ["INTERVALS", "component_intervals"]

FARTHEST = 1e3  # an upper end beyond this multiple of the estimate is called infinite


def component_intervals(
    design: Design,
    marginal: MarginalLikelihood,
    fit: Estimate,
    method: str,
    level: float,
    num_samples: int,
    seed: int,
) -> pd.DataFrame:
    """
    Confidence intervals of the s.d. of all effects and of the residual.

    Args:
        design: the design, without columns that follow from others.
        marginal: the likelihood that was maximised.
        fit: the fit of that design.
        method: ``"profile"``, ``"wald"`` (of the logarithm) or ``"bootstrap"`` (parametric).
        level: of confidence.
        num_samples: number of simulated data sets of the bootstrap.
        seed: seed of the bootstrap.

    Returns:
        a row for each: ``factor``, ``effect``, ``sd``, ``low``, ``high``.

    Raises:
        ValueError: when there is no such method.
    """
    if method not in INTERVALS:
        raise ValueError(f"method must be one of {list(INTERVALS)}, got {method!r}.")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}.")
    rows = [(f.name, effect, k, i) for k, f in enumerate(design.factors) for i, effect in enumerate(f.effects)]
    names = [(factor, effect) for factor, effect, _, _ in rows]
    if fit.residual is not None:
        names.append(("Residual", ""))
    ends = INTERVALS[method](design, marginal, fit, level, num_samples, seed)
    table = pd.DataFrame(names, columns=["factor", "effect"]).assign(sd=_all_sd(fit))
    return table.assign(low=ends[:, 0], high=ends[:, 1])


def _all_sd(fit: Estimate) -> np.ndarray:
    sd = [np.sqrt(np.diag(covariance)) for covariance in fit.covariances]
    return np.concatenate([*sd, [] if fit.residual is None else [fit.residual]])


def _profile(design: Design, marginal: MarginalLikelihood, fit: Estimate, level: float, *_) -> np.ndarray:
    ends = [
        _profile_of(*_first(design, fit, k, i), marginal, k, level)
        for k, factor in enumerate(design.factors)
        for i in range(len(factor.effects))
    ]
    if fit.residual is not None:
        ends.append(_profile_of(design, fit, marginal, None, level))
    return np.array(ends)


def _first(design: Design, fit: Estimate, k: int, i: int) -> tuple[Design, Estimate]:
    """The same with effect i of factor k before the others: the first one's variance is that of L D L^T itself."""
    return reordered(design, fit, k, [i] + [j for j in range(len(design.factors[k].effects)) if j != i])


def _profile_of(
    design: Design, fit: Estimate, marginal: MarginalLikelihood, k: int | None, level: float
) -> tuple[float, float]:
    wanted = norm.ppf((1 + level) / 2) ** 2 / 2
    best = fit.residual if k is None else float(np.sqrt(fit.variances[k][0]))
    assert best is not None
    scale = 1.0 if k is None else np.sqrt((design.factors[k].z[:, 0] ** 2).mean())
    unit = (fit.residual or 1.0) / max(scale, 1e-12)  # an s.d. that makes as much difference as the residual does
    smallest = 1e-4 * unit

    def beyond(sd: float) -> float:
        return fit.log_likelihood - marginal.estimate(design, Held(k, sd, fit)).log_likelihood - wanted

    low = 0.0
    if best > smallest and beyond(smallest) > 0:
        low = _root(beyond, smallest, best)
    start = max(best, smallest)
    far = 1.5 * start
    while beyond(far) < 0:
        far *= 2
        if far > FARTHEST * max(best, unit):
            return low, np.inf
    return low, _root(beyond, start, far)


def _root(beyond: Callable[[float], float], one: float, other: float) -> float:
    """Where the profile crosses, between two s.d., on a logarithmic scale."""
    edge = {np.log(one): beyond(one), np.log(other): beyond(other)}
    if np.prod(np.sign(list(edge.values()))) > 0:  # numbers at the estimate itself that are not quite the maximum's
        return one
    return float(np.exp(brentq(lambda s: edge.get(s, None) or beyond(float(np.exp(s))), *edge, xtol=2e-3)))


def _wald(design: Design, marginal: MarginalLikelihood, fit: Estimate, level: float, *_) -> np.ndarray:
    sd = _all_sd(fit)
    curvature = marginal.curvature(design, fit)
    if curvature is None:
        return np.full((len(sd), 2), np.nan)
    theta, free = curvature.theta, curvature.free
    step = 1e-4
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = [
            (np.log(_all_sd(moved(fit, free, theta + d))) - np.log(_all_sd(moved(fit, free, theta - d)))) / (2 * step)
            for d in step * np.eye(len(theta))
        ]
        slope = np.stack(slopes, 1)
        error = np.sqrt(np.einsum("ki,ij,kj->k", slope, curvature.covariance, slope))
        half = np.where(error > 0, np.exp(norm.ppf((1 + level) / 2) * error), np.nan)
    return np.stack([sd / half, sd * half], 1)


def _bootstrap(
    design: Design, marginal: MarginalLikelihood, fit: Estimate, level: float, num_samples: int, seed: int
) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(num_samples):
        simulated = design._replace(y=_simulated(design, marginal.family, fit, rng))
        found.append(_all_sd(marginal.estimate(simulated)))
    return np.quantile(found, [(1 - level) / 2, (1 + level) / 2], axis=0).T


def _simulated(design: Design, family: str, fit: Estimate, rng: np.random.Generator) -> np.ndarray:
    eta = design.offset + design.x @ fit.coefficients
    for factor, low, variance in zip(design.factors, fit.lower, fit.variances):
        u = rng.normal(size=(factor.num_clusters, len(variance))) * np.sqrt(variance) @ low.T
        eta = eta + (factor.z * u[factor.cluster]).sum(1)
    if family == "gaussian":
        return eta + fit.residual / np.sqrt(design.weight) * rng.normal(size=len(eta))
    if family == "bernoulli":
        return rng.binomial(1, expit(eta)).astype(float)
    if family == "binomial":
        trials = np.asarray(design.weight, int)
        return rng.binomial(trials, expit(eta)) / trials
    if family == "poisson":
        return rng.poisson(np.exp(eta)).astype(float)
    assert fit.shape is not None
    return rng.negative_binomial(fit.shape, fit.shape / (fit.shape + np.exp(eta))).astype(float)


INTERVALS = {"profile": _profile, "wald": _wald, "bootstrap": _bootstrap}
