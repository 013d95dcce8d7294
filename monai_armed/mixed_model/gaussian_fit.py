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

"""Mixed models of Gaussian labels with one grouping factor, by maximum likelihood or REML, exactly."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.optimize import minimize

from .design import Design, Factor
from .gaussian import GaussianModel, GaussianPoint
from .marginal import Estimate, Held, Moments, ThetaCurvature
from .standard_errors import curvature_by_differences
from .whitening import decorrelated, entries, lower_triangle, whitening

__all__ = ["GaussianLikelihood"]

STARTS = (1.0, 0.1)  # s.d. of the effects, in units of the residual's, from which the search starts
LIFTS = (1.0, 0.1, 0.01)  # s.d. by which an effect that is 0 is tried
RISES = 1e-6  # of the log-likelihood, that are worth another search
PRECISE = 1e-6
STEP = 0.005  # of the components, for the curvature


class GaussianLikelihood:
    """
    The likelihood of Gaussian labels with one factor; see
    :py:class:`monai_armed.mixed_model.marginal.MarginalLikelihood`.

    Args:
        restricted: whether it is the restricted likelihood (REML).
    """

    family, points = "gaussian", 1  # without quadrature the integral is exact

    def __init__(self, restricted: bool = False) -> None:
        self.restricted = restricted
        self._kept: tuple[Design, GaussianModel] | None = None

    def _model(self, design: Design) -> GaussianModel:
        """The model of a design: that of the last call if it is the same."""
        if self._kept is None or self._kept[0] is not design:
            self._kept = design, GaussianModel(design, self.restricted)
        return self._kept[1]

    def estimate(self, design: Design, held: Held | None = None) -> Estimate:
        """The fit of a design: the best of searches from several starts, none of which ends where it can rise."""
        factor, turn = design.factors[0], whitening(design.factors[0])
        search = _Search(GaussianModel(design, self.restricted, turn), factor, turn, held)
        found = max((search.run(start) for start in search.starts()), key=lambda one: one[0].log_likelihood)
        best, tril = found
        root = turn @ tril * best.residual
        lower, variances = decorrelated(root @ root.T, factor, best.residual)
        errors = best.residual * np.sqrt(np.diag(best.spread))
        value = best.log_likelihood
        return Estimate([lower], [variances], best.coefficients, errors, best.residual, None, value)

    def profile(self, design: Design, fit: Estimate) -> tuple[float, np.ndarray]:
        """Log-likelihood and best fixed effects with the components of a fit."""
        found = self._model(design).at(_relative(fit), fit.residual)
        return found.log_likelihood, found.coefficients

    def curvature(self, design: Design, fit: Estimate) -> ThetaCurvature | None:
        """How well the components of a fit are known."""
        return curvature_by_differences(design, self.profile, fit, STEP)

    def modes(self, design: Design, fit: Estimate) -> list[Moments]:
        """Moments of the effects given the data and the fit."""
        return [self._moments(design, fit, False)]

    def moments(self, design: Design, fit: Estimate) -> list[Moments]:
        """The same with the fixed effects unknown."""
        return [self._moments(design, fit, True)]

    def _moments(self, design: Design, fit: Estimate, diffuse: bool) -> Moments:
        assert fit.residual is not None
        model, tril = self._model(design), _relative(fit)
        found = model.at(tril, fit.residual)
        mean, covariance, slope = model.effects(tril, found.coefficients if diffuse else fit.coefficients)
        if diffuse:
            covariance = covariance + slope @ found.spread @ slope.transpose(0, 2, 1)
        return Moments(mean, fit.residual**2 * covariance)


def _relative(fit: Estimate) -> np.ndarray:
    """Cholesky factor (Q, Q) of the effects' covariance in units of the residual's variance."""
    assert fit.residual is not None
    return fit.lower[0] * np.sqrt(fit.variances[0]) / fit.residual


class _Search:
    """
    A search for T, of which the free entries are the values. Where the s.d. of the first effect is held, the first
    value is the logarithm of the residual's s.d. instead.
    """

    def __init__(self, model: GaussianModel, factor: Factor, turn: np.ndarray, held: Held | None) -> None:
        self.model, self.factor, self.turn, self.held = model, factor, turn, held
        self.fixed = int(held is not None and held.factor is not None)  # effects whose s.d. is held
        self.rows, self.columns = entries(factor)

    def starts(self) -> Iterator[np.ndarray]:
        """Values from which to search."""
        size = len(self.turn)
        trils = [start * np.eye(size) for start in STARTS]
        residual = 1.0
        if self.held is not None:
            near = self.held.near
            residual = near.residual or 1.0
            trils.insert(0, np.linalg.solve(self.turn, _relative(near)) + LIFTS[-1] * np.eye(size))
        for tril in trils:
            values = tril[self.rows, self.columns]
            yield np.append(np.log(residual), values[1:]) if self.fixed else values

    def point(self, values: np.ndarray) -> tuple[GaussianPoint, np.ndarray, np.ndarray]:
        """The likelihood, T, and the gradient by the values."""
        tril, residual = lower_triangle(self.factor, values), None
        if self.held is not None and not self.fixed:
            residual = self.held.sd
        elif self.held is not None:
            residual = float(np.exp(values[0]))
            tril[0, 0] = self.held.sd / (self.turn[0, 0] * residual)
        found = self.model.at(tril, residual)
        gradient = 2 * (found.slope @ tril)[self.rows, self.columns]
        if self.fixed:
            gradient[0] = found.residual_slope - gradient[0] * tril[0, 0]
        return found, tril, gradient

    def run(self, values: np.ndarray) -> tuple[GaussianPoint, np.ndarray]:
        """The maximum that is found from these values, and T there; not a saddle where an effect is 0."""

        def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
            found, _, gradient = self.point(values)
            return -found.log_likelihood, -gradient

        while True:
            values = minimize(objective, values, jac=True, method="BFGS", options={"gtol": PRECISE}).x
            best, tril, _ = self.point(values)
            lifted = max(self.lifted(values, tril, best.slope), key=lambda v: self.point(v)[0].log_likelihood)
            rise = self.point(lifted)[0].log_likelihood - best.log_likelihood
            if not rise > RISES * max(1.0, RISES * abs(best.log_likelihood)):  # nor what rounding makes of a large one
                return best, tril
            values = lifted

    def lifted(self, values: np.ndarray, tril: np.ndarray, slope: np.ndarray) -> Iterator[np.ndarray]:
        """Values of T T^T and a little more in the direction in which the likelihood rises most."""
        free = slope[self.fixed :, self.fixed :]
        axes = np.linalg.eigh(free if self.factor.correlated else np.diag(np.diag(free)))[1]
        yield values
        if not len(free):
            return
        rising = np.append(np.zeros(self.fixed), axes[:, -1])
        for lift in LIFTS:
            more = np.linalg.qr(np.column_stack([tril, lift * rising]).T)[1].T
            more = (more * np.where(np.diag(more) < 0, -1, 1))[self.rows, self.columns]
            yield np.append(values[0], more[1:]) if self.fixed else more
