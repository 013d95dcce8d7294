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

"""Mixed models by GPBoost: its likelihood, optimiser and predictions; correlated effects and REML are put in its terms.

GPBoost's grouped effects are independent of one another. Effects u of a cluster that correlate, with covariance T T^T,
are u = T v with independent v of variance 1, so that the model of v has the columns Z T; T is searched for around
GPBoost's fit of all else. The restricted likelihood is the likelihood of a model whose fixed effects are random
effects, too, with a variance so large that it does not matter (Section 2.4 of https://doi.org/10.18637/jss.v067.i01).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from .design import Design, Factor
from .gpboost_model import GroupedModel
from .marginal import Estimate, Held, Moments, ThetaCurvature
from .standard_errors import curvature_by_differences
from .whitening import decorrelated, entries, whitened_variances, whitening

__all__ = ["GPBoostLikelihood"]

FLOORS = (0.03, 0.3, 1.0)  # s.d. from which a search starts at least, in units of the residual's, or logits
SMALL = 0.1  # s.d., in the same units, that may be one that a search did not leave


class GPBoostLikelihood(NamedTuple):
    """
    The likelihood as GPBoost has it: exact for Gaussian labels, by Laplace's approximation for others; see
    :py:class:`monai_armed.mixed_model.marginal.MarginalLikelihood`.

    Args:
        family: one of :py:data:`monai_armed.mixed_model.gpboost_model.LIKELIHOODS`.
        restricted: whether it is the restricted likelihood (REML); for Gaussian labels.
    """

    family: str
    restricted: bool = False

    @property
    def points(self) -> int:
        """Laplace's approximation is quadrature with one node."""
        return 1

    def estimate(self, design: Design, held: Held | None = None) -> Estimate:
        """The fit of a design."""
        search = _Search(design, self, held)
        found = search.best()
        residual, _ = found.effects()
        covariances, log_likelihood = search.covariances(found), found.log_likelihood()
        unit = residual or 1.0
        parts = [decorrelated(c, f, unit) for c, f in zip(covariances, design.factors)]
        lower, variances = [low for low, _ in parts], [variance for _, variance in parts]
        if self.restricted:  # the fixed effects are those of generalised least squares with these variances
            found = _with_components(GroupedModel(design, self.family, lower), variances, residual)
        shape = found.gp.get_aux_pars(format_pandas=False)
        known = None if self.family != "negative_binomial" or shape is None else float(np.ravel(shape)[0])
        return Estimate(lower, variances, found.coefficients(), found.errors(), residual, known, log_likelihood)

    def profile(self, design: Design, fit: Estimate) -> tuple[float, np.ndarray]:
        """Log-likelihood and best fixed effects with the components of a fit."""
        model = _with_components(GroupedModel(design, self.family, fit.lower), fit.variances, fit.residual)
        coefficients = model.coefficients()
        if self.restricted:
            model = GroupedModel(design, self.family, fit.lower, coefficients)
            model = _with_components(model, fit.variances, fit.residual)
        return model.log_likelihood(), coefficients

    def curvature(self, design: Design, fit: Estimate) -> ThetaCurvature | None:
        """How well the components of a fit are known."""
        return curvature_by_differences(design, self.profile, fit)

    def modes(self, design: Design, fit: Estimate) -> list[Moments]:
        """Moments of the effects given the data and the fit; of labels that are not Gaussian by Laplace."""
        return _moments(design, self.family, fit, None)

    def moments(self, design: Design, fit: Estimate) -> list[Moments]:
        """The same with the fixed effects unknown."""
        return _moments(design, self.family, fit, fit.coefficients if design.x.shape[1] else None)


def _with_components(model: GroupedModel, variances: Sequence[np.ndarray], residual: float | None) -> GroupedModel:
    """Fitted with these components."""
    start = model.start(variances, residual)
    return model.fit(start, np.zeros(len(start)))


class _Search:
    """
    GPBoost's fits from several starts. The variances of effects that do not correlate are GPBoost's to find; those that
    do are T v with v of variance 1, and T is searched for around it, in units in which it depends on neither location
    nor scale of what the effects are multiplied with.
    """

    def __init__(self, design: Design, marginal: GPBoostLikelihood, held: Held | None) -> None:
        self.design, self.marginal, self.held = design, marginal, held
        self.turns = [whitening(factor) for factor in design.factors]
        self.apart: GroupedModel | None = None
        if held is None:
            self.apart = GroupedModel(design, marginal.family, self.turns).fit()
            self.residual, variances = self.apart.effects()
            self.trils = [np.diag(np.sqrt(v)) for v in variances]
            self.center = self.apart.coefficients()
        else:
            near = held.near
            self.residual, self.center = near.residual if held.factor is not None else held.sd, near.coefficients
            roots = [low * np.sqrt(variance) for low, variance in zip(near.lower, near.variances)]
            self.trils = [np.linalg.solve(turn, root) for turn, root in zip(self.turns, roots)]
        self.unit = self.residual if marginal.family == "gaussian" and self.residual else 1.0

    def best(self) -> GroupedModel:
        """
        The best fit. A search that ends where nothing is 0 has found it; from 0 it does not come back, so that others
        start elsewhere then.
        """
        correlated = any(factor.correlated for factor in self.design.factors)
        found = self.apart
        if found is None or correlated or self.marginal.restricted:
            found = self.run(FLOORS[0])
        for floor in FLOORS[1:] if self.is_singular(found) else ():
            found = max(found, self.run(floor), key=GroupedModel.log_likelihood)
        return found

    def is_singular(self, model: GroupedModel) -> bool:
        """Whether a variance in whitened units is 0."""
        for turn, covariance in zip(self.turns, self.covariances(model)):
            if whitened_variances(covariance, turn, self.unit).min() < SMALL**2:
                return True
        return False

    def covariances(self, model: GroupedModel) -> list[np.ndarray]:
        """Covariance (Q, Q) of each factor's effects in a fit."""
        return [low @ np.diag(variance) @ low.T for low, variance in zip(model.lower, model.effects()[1])]

    def run(self, floor: float) -> GroupedModel:
        """The fit from where the search starts, with s.d. of at least ``floor`` units."""
        trils = []
        for k, (turn, start) in enumerate(zip(self.turns, self.trils)):
            tril = start.copy()
            np.fill_diagonal(tril, np.maximum(np.diag(tril), floor * self.unit))
            if self.held is not None and self.held.factor == k:
                tril[0, 0] = self.held.sd / turn[0, 0]
            trils.append(tril)
        searched = [
            (k, i, j)
            for k, factor in enumerate(self.design.factors)
            if factor.correlated
            for i, j in zip(*entries(factor))
            if not (self.held is not None and self.held.factor == k and i == j == 0)
        ]
        if not searched:
            return self.fit(trils)

        def at(values: np.ndarray) -> GroupedModel:
            for (k, i, j), value in zip(searched, values):
                trils[k][i, j] = value * self.unit
            return self.fit(trils)

        start = np.array([trils[k][i, j] for k, i, j in searched]) / self.unit
        found = minimize(lambda v: -at(v).log_likelihood(), start, method="BFGS", options={"eps": 1e-4, "gtol": 1e-3})
        return at(found.x)

    def fit(self, trils: Sequence[np.ndarray]) -> GroupedModel:
        """GPBoost's fit of all else, from these s.d. of effects that do not correlate."""
        factors = self.design.factors
        lower = [turn @ tril if f.correlated else turn for f, turn, tril in zip(factors, self.turns, trils)]
        variances = [np.ones(len(t)) if f.correlated else np.diag(t) ** 2 for f, t in zip(factors, trils)]
        center = self.center if self.marginal.restricted else None
        model = GroupedModel(self.design, self.marginal.family, lower, center)
        start = model.start(variances, self.residual)
        free = np.arange(len(start)) < model.gaussian + model.own
        for k, factor in enumerate(factors):
            if factor.correlated:
                free[model.place(k) : model.place(k + 1)] = False
        if self.held is not None:
            free[model.place(self.held.factor)] = False
        return model.fit(start, free)


def _moments(design: Design, family: str, fit: Estimate, diffuse: np.ndarray | None) -> list[Moments]:
    """Of each factor; the covariances hold the uncertainty of the fixed effects where these are ``diffuse``."""
    model = _with_components(GroupedModel(design, family, fit.lower, diffuse), fit.variances, fit.residual)
    columns = sum(len(v) for v in fit.variances)
    before = 0
    found = []
    for k, (factor, low, scale) in enumerate(zip(design.factors, fit.lower, model.column_scale)):
        found.append(_moments_of(model, k, factor, low, scale, (before, columns)))
        before += len(scale)
    return found


def _moments_of(
    model: GroupedModel, k: int, factor: Factor, low: np.ndarray, scale: np.ndarray, place: tuple[int, int]
) -> Moments:
    """Moments of one factor, from the means and variances that GPBoost predicts for v_i and for v_i + v_j."""
    size, clusters = len(scale), factor.num_clusters
    pairs = [(i, j) for i in range(size) for j in range(i, size)]
    probes = np.zeros((len(pairs), size))
    for row, (i, j) in enumerate(pairs):
        probes[row, [i, j]] = 1.0
    diffuse = model.x.shape[1] if model.diffuse else 0
    data = np.zeros((len(pairs), clusters, place[1] + diffuse))
    data[:, :, place[0] : place[0] + size] = probes[:, None, :]
    seen = [f.cluster[0] for f in model.design.factors] + [0] * model.diffuse  # of no weight
    groups = np.tile(np.array(seen), (len(pairs) * clusters, 1))
    groups[:, k] = np.tile(np.arange(clusters), len(pairs))
    predicted = model.gp.predict(
        group_data_pred=groups,
        group_rand_coef_data_pred=data.reshape(len(groups), -1),
        X_pred=None if model.diffuse or not model.x.shape[1] else np.zeros((len(groups), model.x.shape[1])),
        predict_var=True,
        predict_response=False,
    )
    mean, variance = (predicted[name].reshape(len(pairs), clusters) for name in ("mu", "var"))
    own_mean = np.stack([mean[pairs.index((i, i))] for i in range(size)], 1)
    covariance = np.zeros((clusters, size, size))
    for row, (i, j) in enumerate(pairs):
        if i == j:
            covariance[:, i, i] = variance[row]
        else:
            alone = variance[pairs.index((i, i))] + variance[pairs.index((j, j))]
            covariance[:, i, j] = covariance[:, j, i] = (variance[row] - alone) / 2
    turn = low / scale * model.unit
    return Moments(own_mean @ turn.T, turn @ covariance @ turn.T)
