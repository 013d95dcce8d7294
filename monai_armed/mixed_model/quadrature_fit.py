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

"""Mixed models by adaptive Gauss-Hermite quadrature, where Laplace's approximation is too rough."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize

from .design import Design
from .gpboost_fit import GPBoostLikelihood
from .marginal import Estimate, Held, Moments, ThetaCurvature
from .quadrature import FAMILIES, QuadratureModel
from .standard_errors import component_values, free_components, reordered
from .whitening import column_size, decorrelated

__all__ = ["MOST_EFFECTS", "QuadratureLikelihood", "check_quadrature"]

MOST_EFFECTS = 3  # the grid has points^Q nodes
SMALLEST = 0.1  # s.d., in logits, from which the search starts at least: at 0 the likelihood is flat
FLAT = 1e-3  # s.d., in logits, below which a held effect's correlations make no difference, and the search would drift
PRECISE = 1e-4  # of all parameters, in standard errors
WORN = 1e-6  # share of the largest curvature below which there is none


def check_quadrature(design: Design, family: str) -> None:
    """
    Whether a design can be integrated by quadrature.

    Raises:
        ValueError: when there are several factors, or many effects, or the family is another.
    """
    counts = [factor.z.shape[1] for factor in design.factors]
    if len(counts) > 1 or counts[0] > MOST_EFFECTS:
        raise ValueError(
            f"adaptive quadrature is for one factor with at most {MOST_EFFECTS} random effects a cluster, got "
            f"{' + '.join(map(str, counts))} of {len(counts)} factor{'s' * (len(counts) > 1)}: use method='Laplace'."
        )
    if family not in FAMILIES:
        raise ValueError(f"adaptive quadrature is for binary labels and counts, not for {family!r}.")


class QuadratureLikelihood:
    """
    The likelihood by adaptive Gauss-Hermite quadrature; see
    :py:class:`monai_armed.mixed_model.marginal.MarginalLikelihood`.

    Args:
        family: ``"bernoulli"``, ``"binomial"`` or ``"poisson"``.
        points: number of nodes for each effect.
    """

    def __init__(self, family: str, points: int) -> None:
        self.family, self.points = family, points
        self._kept: tuple[Design, list[int], QuadratureModel] | None = None

    def _model(self, given: Design, design: Design, order: Sequence[int] = ()) -> QuadratureModel:
        """The model of a design whose effects were reordered; that of the last call, whose modes are near, if it is."""
        if self._kept is None or self._kept[0] is not given or self._kept[1] != list(order):
            self._kept = given, list(order), QuadratureModel(design, self.family, self.points)
        return self._kept[2]

    def estimate(self, design: Design, held: Held | None = None) -> Estimate:
        """The fit of a design, from Laplace's without correlations, which for GPBoost are a search of many fits."""
        factor = design.factors[0]
        if held is None:
            apart = design._replace(factors=[factor._replace(correlated=False)])
            start = GPBoostLikelihood(self.family).estimate(apart)
        else:
            start = held.near
        order = list(np.argsort(-np.diag(start.covariances[0]) * column_size(factor.z) ** 2))
        if held is not None:  # the first one's s.d. is T's first entry
            order.sort(key=bool)
        given, (design, start) = design, reordered(design, start, 0, order)
        model = self._model(given, design, order)
        values, free = _from(model, start, held)
        values, log_likelihood = _maximised(model, values, free)
        errors = np.sqrt(np.diag(_fixed_covariance(model, values)))
        tril, back = model.tril(values).numpy(), np.argsort(order)
        lower, variances = decorrelated((tril @ tril.T)[np.ix_(back, back)], factor)
        return Estimate([lower], [variances], values[: design.x.shape[1]], errors, None, None, log_likelihood)

    def profile(self, design: Design, fit: Estimate) -> tuple[float, np.ndarray]:
        """Log-likelihood and best fixed effects with the components of a fit."""
        model = self._model(design, design)
        values, log_likelihood = _best_fixed(model, fit)
        return log_likelihood, values[: design.x.shape[1]]

    def curvature(self, design: Design, fit: Estimate) -> ThetaCurvature | None:
        """How well the components of a fit are known, from the information of all parameters."""
        free = free_components(design, fit)
        model = self._model(design, design)
        if not free:
            return None
        p = design.x.shape[1]
        information = model.information(_values(model, fit))
        turn = _by_theta(model, fit, free)
        fixed, cross = information[:p, :p], information[:p, p:] @ turn
        slope = -np.linalg.pinv(fixed, hermitian=True) @ cross
        profiled = turn.T @ information[p:, p:] @ turn + cross.T @ slope
        if np.linalg.eigvalsh(profiled).min() <= 0:
            return None
        return ThetaCurvature(np.linalg.inv(profiled), slope, component_values(design, fit, free)[0], free)

    def modes(self, design: Design, fit: Estimate) -> list[Moments]:
        """Modes and curvatures, as lme4 gives them."""
        model = self._model(design, design)
        values = _values(model, fit)
        (mode, curvature), tril = model.modes(values), model.tril(values)
        return [Moments((mode @ tril.T).numpy(), (tril @ curvature @ tril.T).numpy())]

    def moments(self, design: Design, fit: Estimate) -> list[Moments]:
        """Means and covariances by quadrature, with the fixed effects unknown."""
        model = self._model(design, design)
        values, _ = _best_fixed(model, fit)
        found, tril = model.moments(values), model.tril(values).numpy()
        slope = found.slope.numpy()
        fixed = slope @ _fixed_covariance(model, values) @ slope.transpose(0, 2, 1)
        return [Moments(found.mean.numpy() @ tril.T, tril @ (found.covariance.numpy() + fixed) @ tril.T)]


def _from(model: QuadratureModel, start: Estimate, held: Held | None) -> tuple[np.ndarray, np.ndarray]:
    """Parameters from which a search starts, and which of them are free."""
    p, size = model.x.shape[1], column_size(model.z.numpy())
    tril = start.lower[0] * np.sqrt(start.variances[0])
    np.fill_diagonal(tril, np.maximum(np.diag(tril), SMALLEST / size))
    free = np.ones(p + len(model.rows), bool)
    if held is not None:
        tril[0, 0] = held.sd
        free[p] = False
        if held.sd * size[0] < FLAT:
            tril[1:, 0] = 0.0
            free[p:] &= model.columns > 0
    return np.concatenate([start.coefficients, tril[model.rows, model.columns]]), free


def _values(model: QuadratureModel, fit: Estimate) -> np.ndarray:
    tril = fit.lower[0] * np.sqrt(fit.variances[0])
    return np.concatenate([fit.coefficients, tril[model.rows, model.columns]])


def _by_theta(model: QuadratureModel, fit: Estimate, free: list[tuple[str, int, tuple]]) -> np.ndarray:
    """Derivatives of T's entries by theta: column j of T is that of L times the s.d. of v's effect j."""
    sd = np.sqrt(fit.variances[0])
    turn = np.zeros((len(model.rows), len(free)))
    for k, (kind, _, place) in enumerate(free):
        if kind == "variance":
            inside = model.columns == place[0]
            turn[inside, k] = (fit.lower[0] * sd)[model.rows, model.columns][inside] / 2
        else:
            turn[(model.rows == place[0]) & (model.columns == place[1]), k] = sd[place[1]]
    return turn


def _fixed_covariance(model: QuadratureModel, values: np.ndarray) -> np.ndarray:
    """Of the fixed effects, given the components; (P, P)."""
    p = model.x.shape[1]
    return np.linalg.pinv(model.information(values, np.arange(p)), hermitian=True) if p else np.zeros((0, 0))


def _best_fixed(model: QuadratureModel, fit: Estimate) -> tuple[np.ndarray, float]:
    """The parameters with the components of a fit and the fixed effects that are best then, and the log-likelihood."""
    values = _values(model, fit)
    return _maximised(model, values, np.arange(len(values)) < len(fit.coefficients))


def _maximised(model: QuadratureModel, values: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, float]:
    """BFGS in units in which the curvature at the start is 1 in every direction, so that it is nearly Newton's."""
    if not free.any():
        return values, model.log_likelihood(values)[0]
    root = _whitening(model.information(values, free))

    def at(change: np.ndarray) -> np.ndarray:
        moved = values.copy()
        moved[free] += root @ change
        return moved

    def objective(change: np.ndarray) -> tuple[float, np.ndarray]:
        with np.errstate(over="ignore", invalid="ignore"):
            log_likelihood, gradient = model.log_likelihood(at(change))
        if not np.isfinite(log_likelihood):
            return np.inf, np.zeros(len(change))
        return -log_likelihood, -root.T @ gradient[free]

    found = minimize(objective, np.zeros(free.sum()), jac=True, method="BFGS", options={"gtol": PRECISE})
    return at(found.x), -float(found.fun)


def _whitening(information: np.ndarray) -> np.ndarray:
    """A matrix R with R^T I R = 1; of a matrix that is not positive definite, with its curvatures' absolute values."""
    size = np.sqrt(np.abs(np.diag(information)))
    size[size == 0] = 1.0
    curvature, axes = np.linalg.eigh(information / np.outer(size, size))
    curvature = np.abs(curvature)
    return axes / np.sqrt(curvature.clip(min=WORN * curvature.max())) / size[:, None]
