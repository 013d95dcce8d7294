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

GPBoost's grouped effects are independent of one another. Effects u of a cluster that correlate, with covariance
L D L^T (L with a diagonal of ones), are u = L v with independent v, so that the model of v has the columns Z L; L is
searched for around GPBoost's fit. The restricted likelihood is the likelihood of a model whose fixed effects are random
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

__all__ = ["GPBoostLikelihood"]


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
        lower = _search_lower(design, self, held)
        model = _fitted(design, self, lower, held)
        residual, variances = model.effects()
        log_likelihood = model.log_likelihood()
        if self.restricted:  # the fixed effects are those of generalised least squares with these variances
            model = _with_components(GroupedModel(design, self.family, lower), variances, residual)
        shape = model.gp.get_aux_pars(format_pandas=False)
        known = None if self.family != "negative_binomial" or shape is None else float(np.ravel(shape)[0])
        return Estimate(lower, variances, model.coefficients(), model.errors(), residual, known, log_likelihood)

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


def _fitted(
    design: Design, marginal: GPBoostLikelihood, lower: Sequence[np.ndarray], held: Held | None
) -> GroupedModel:
    if held is None:
        model = GroupedModel(design, marginal.family, lower).fit()
        if not marginal.restricted:
            return model
        (residual, variances), center = model.effects(), model.coefficients()
    else:
        residual, center = held.near.residual, held.near.coefficients
        variances = [v.copy() for v in held.near.variances]
        if held.factor is None:
            residual = held.sd
        else:
            variances[held.factor][0] = held.sd**2
    model = GroupedModel(design, marginal.family, lower, center if marginal.restricted else None)
    start = model.start(variances, residual)
    own = model.gaussian + model.own
    free = np.arange(len(start)) < own
    least = 1e-3 * (start[0] if model.gaussian else start[:own].max())
    if held is not None:
        free[model.place(held.factor)] = False
    start[free] = np.maximum(start[free], least)  # from zero the optimiser does not come back
    return model.fit(start, free)


def _search_lower(design: Design, marginal: GPBoostLikelihood, held: Held | None) -> list[np.ndarray]:
    """L of each factor: the identity for effects that do not correlate, else what makes the likelihood largest."""
    starts, units = [], []
    for k, factor in enumerate(design.factors):
        size = factor.z.shape[1]
        unit = 1 / np.maximum(np.sqrt((factor.z**2).mean(0)), 1e-12)  # entries of L then are of size 1
        units.append(np.outer(unit, 1 / unit))
        diagonal = factor.start.diagonal()
        low = factor.start / diagonal if held is None else held.near.lower[k]
        starts.append((low / units[-1])[np.tril_indices(size, -1)] if factor.correlated else np.zeros(0))
    sizes = [len(start) for start in starts]

    def triangles(values: np.ndarray) -> list[np.ndarray]:
        made = []
        for factor, unit, part in zip(design.factors, units, np.split(values, np.cumsum(sizes)[:-1])):
            low = np.eye(factor.z.shape[1])
            if len(part):
                low[np.tril_indices(len(low), -1)] = part
                low *= unit
            made.append(low)
        return made

    if not sum(sizes):
        return triangles(np.zeros(0))

    def objective(values: np.ndarray) -> float:
        return -_fitted(design, marginal, triangles(values), held).log_likelihood()

    found = minimize(objective, np.concatenate(starts), method="BFGS", options={"eps": 1e-4, "gtol": 1e-3})
    return triangles(found.x)


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
