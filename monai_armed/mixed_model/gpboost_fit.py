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

__all__ = ["Estimate", "Held", "Moments", "estimate", "moments", "profile"]


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


def estimate(design: Design, likelihood: str, restricted: bool = False, held: Held | None = None) -> Estimate:
    """
    Maximise the likelihood, by Laplace's approximation if it is not Gaussian, or the restricted likelihood.

    Args:
        design: what :py:func:`monai_armed.mixed_model.design.read_design` gives.
        likelihood: one of :py:data:`monai_armed.mixed_model.gpboost_model.LIKELIHOODS`.
        restricted: whether to use the restricted likelihood (REML); for Gaussian labels.
        held: what stays as it is, for a profile of the likelihood.

    Returns:
        the fit.
    """
    lower = _search_lower(design, likelihood, restricted, held)
    model = _fitted(design, likelihood, lower, restricted, held)
    residual, variances = model.effects()
    log_likelihood = model.log_likelihood()
    if restricted:  # the fixed effects are those of generalised least squares with these variances
        model = GroupedModel(design, likelihood, lower)
        start = model.start(variances, residual)
        model.fit(start, np.zeros(len(start)))
    shape = model.gp.get_aux_pars(format_pandas=False)
    known = None if likelihood != "negative_binomial" or shape is None else float(np.ravel(shape)[0])
    return Estimate(lower, variances, model.coefficients(), model.errors(), residual, known, log_likelihood)


def _fitted(
    design: Design, likelihood: str, lower: Sequence[np.ndarray], restricted: bool, held: Held | None
) -> GroupedModel:
    if held is None:
        model = GroupedModel(design, likelihood, lower).fit()
        if not restricted:
            return model
        (residual, variances), center = model.effects(), model.coefficients()
    else:
        residual, center = held.near.residual, held.near.coefficients
        variances = [v.copy() for v in held.near.variances]
        if held.factor is None:
            residual = held.sd
        else:
            variances[held.factor][0] = held.sd**2
    model = GroupedModel(design, likelihood, lower, center if restricted else None)
    start = model.start(variances, residual)
    own = model.gaussian + model.own
    free = np.arange(len(start)) < own
    least = 1e-3 * (start[0] if model.gaussian else start[:own].max())
    if held is not None:
        free[model.place(held.factor)] = False
    start[free] = np.maximum(start[free], least)  # from zero the optimiser does not come back
    return model.fit(start, free)


def profile(design: Design, likelihood: str, fit: Estimate, restricted: bool) -> tuple[float, np.ndarray]:
    """Log-likelihood with the variance components of ``fit`` and the fixed effects that are best then, and these."""
    model = GroupedModel(design, likelihood, fit.lower)
    start = model.start(fit.variances, fit.residual)
    model.fit(start, np.zeros(len(start)))
    coefficients = model.coefficients()
    if not restricted:
        return model.log_likelihood(), coefficients
    model = GroupedModel(design, likelihood, fit.lower, coefficients)
    start = model.start(fit.variances, fit.residual)
    return model.fit(start, np.zeros(len(start))).log_likelihood(), coefficients


def _search_lower(design: Design, likelihood: str, restricted: bool, held: Held | None) -> list[np.ndarray]:
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
        return -_fitted(design, likelihood, triangles(values), restricted, held).log_likelihood()

    found = minimize(objective, np.concatenate(starts), method="BFGS", options={"eps": 1e-4, "gtol": 1e-3})
    return triangles(found.x)


def moments(design: Design, likelihood: str, fit: Estimate, diffuse: bool = False) -> list[Moments]:
    """
    Mean and covariance of every cluster's effects given the data and the fit; of non-Gaussian labels by Laplace.

    Args:
        design: the design.
        likelihood: one of :py:data:`monai_armed.mixed_model.gpboost_model.LIKELIHOODS`.
        fit: what :py:func:`estimate` found for them.
        diffuse: whether the fixed effects count as unknown, so that the covariances hold their uncertainty, too.

    Returns:
        the moments of each factor.
    """
    model = GroupedModel(design, likelihood, fit.lower, fit.coefficients if diffuse else None)
    start = model.start(fit.variances, fit.residual)
    model.fit(start, np.zeros(len(start)))
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
