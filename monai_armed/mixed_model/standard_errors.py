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

"""Standard errors that know of the variance components' own: the curvature of the likelihood in all parameters at once.

The fixed effects of a Gaussian model do not depend on its variance components to first order. Those of others do:
Var(beta) = Var(beta | theta) + B Var(theta) B^T, with B how the best beta moves with theta, and Var(theta) from the
curvature of the profile likelihood, which is what the whole Hessian's inverse comes to. theta are the logarithms of the
variances of the effects after decorrelation, and the entries of L.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from .design import Design
from .marginal import Estimate, ThetaCurvature

__all__ = [
    "MOST",
    "component_values",
    "curvature_by_differences",
    "free_components",
    "hessian",
    "moved",
    "reordered",
    "with_full_errors",
]

STEP = 0.05
MOST = 12  # components; with more the errors are those given the components
NOTHING = 1e-6  # a variance below this share of the largest one is 0, at the edge, and has no curvature


def free_components(design: Design, fit: Estimate) -> list[tuple[str, int, tuple]]:
    """What is free: residual, variances that are not 0, and entries of L between such."""
    free: list[tuple[str, int, tuple]] = [("residual", 0, ())] if fit.residual is not None else []
    for k, (factor, variance) in enumerate(zip(design.factors, fit.variances)):
        size = variance * (factor.z**2).mean(0)
        alive = size > NOTHING * max(size.max(), (fit.residual or 0.0) ** 2)
        free += [("variance", k, (i,)) for i in np.flatnonzero(alive)]
        if factor.correlated:
            free += [("lower", k, (i, j)) for j in np.flatnonzero(alive) for i in range(j + 1, len(variance))]
    return free


def component_values(
    design: Design, fit: Estimate, free: Sequence[tuple[str, int, tuple]]
) -> tuple[np.ndarray, np.ndarray]:
    """Value of each free component, and by how much it changes where its standardised value changes by 1."""
    theta, scale = [], []
    for kind, k, place in free:
        if kind == "lower":
            size = np.sqrt((design.factors[k].z ** 2).mean(0))
            theta.append(fit.lower[k][place])
            scale.append(size[place[1]] / max(size[place[0]], 1e-12))
        else:
            value = fit.residual**2 if kind == "residual" and fit.residual else fit.variances[k][place]
            theta.append(np.log(value))
            scale.append(2.0)  # of the s.d.'s logarithm 1
    return np.array(theta), np.array(scale)


def moved(fit: Estimate, free: list[tuple[str, int, tuple]], theta: np.ndarray) -> Estimate:
    """The fit with other components, its fixed effects left as they are."""
    lower, variances, residual = [v.copy() for v in fit.lower], [v.copy() for v in fit.variances], fit.residual
    for (kind, k, place), value in zip(free, theta):
        if kind == "residual":
            residual = float(np.exp(value / 2))
        elif kind == "variance":
            variances[k][place] = np.exp(value)
        else:
            lower[k][place] = value
    return fit._replace(lower=lower, variances=variances, residual=residual)


def reordered(design: Design, fit: Estimate, k: int, order: Sequence[int]) -> tuple[Design, Estimate]:
    """The same model with the effects of factor k in another order."""
    factors, lower, variances = list(design.factors), list(fit.lower), list(fit.variances)
    factor, covariance = factors[k], fit.covariances[k]
    factors[k] = factor._replace(z=factor.z[:, order], effects=[factor.effects[i] for i in order])
    floor = np.diag(np.maximum(1e-9 * np.diag(covariance), 1e-300))
    tril = np.linalg.cholesky((covariance + floor)[np.ix_(order, order)])
    lower[k], variances[k] = tril / np.diag(tril), np.diag(tril) ** 2
    return design._replace(factors=factors), fit._replace(lower=lower, variances=variances)


def curvature_by_differences(
    design: Design,
    profile: Callable[[Design, Estimate], tuple[float, np.ndarray]],
    fit: Estimate,
    step: float = STEP,
) -> ThetaCurvature | None:
    """
    Curvature of a profile likelihood at a fit.

    Args:
        design: the design.
        profile: the likelihood's, as :py:class:`monai_armed.mixed_model.marginal.MarginalLikelihood` has it.
        fit: its maximum.
        step: of the standardised components; a likelihood that is exact takes a smaller one.

    Returns:
        the curvature, or None with too many components, or where it is not that of a maximum.
    """
    free = free_components(design, fit)
    if not free or len(free) > MOST:
        return None
    start, scale = component_values(design, fit, free)
    width = step * scale

    @functools.cache
    def at(*change: float) -> tuple[float, np.ndarray]:
        return profile(design, moved(fit, free, start + np.array(change) * width))

    curvature = hessian(lambda change: at(*change)[0], np.zeros(len(free)), 1.0)
    if np.linalg.eigvalsh(curvature).min() <= 0:
        return None
    slope = np.stack([(at(*unit)[1] - at(*-unit)[1]) / 2 for unit in np.eye(len(free))], 1)
    covariance = np.linalg.inv(curvature) * np.outer(width, width)
    return ThetaCurvature(covariance, slope / width, start, free)


def hessian(function: Callable[[np.ndarray], float], place: np.ndarray, step: float) -> np.ndarray:
    """How fast a function falls off around a place where it is largest: less its second derivatives (K, K)."""
    unit = step * np.eye(len(place))
    top, plus, minus = function(place), [function(place + u) for u in unit], [function(place - u) for u in unit]
    found = np.diag([2 * top - p - m for p, m in zip(plus, minus)])
    for i in range(len(place)):
        for j in range(i):
            both = function(place + unit[i] + unit[j]) + function(place - unit[i] - unit[j])
            found[i, j] = found[j, i] = -(both - plus[i] - minus[i] - plus[j] - minus[j] + 2 * top) / 2
    return found / step**2


def with_full_errors(fit: Estimate, curvature: ThetaCurvature | None) -> Estimate:
    """The fit with standard errors of the fixed effects that count those of the components."""
    if curvature is None or not len(fit.coefficients):
        return fit
    added = np.einsum("pi,ij,pj->p", curvature.slope, curvature.covariance, curvature.slope)
    return fit._replace(errors=np.sqrt(fit.errors**2 + added))
