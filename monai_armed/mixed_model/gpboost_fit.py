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
from contextlib import redirect_stdout
from typing import Any, NamedTuple

import numpy as np
from monai.utils import optional_import
from scipy.optimize import minimize

from .design import Design, Factor

gpboost, _ = optional_import("gpboost")

__all__ = ["LIKELIHOODS", "Estimate", "Held", "Moments", "estimate", "moments", "profile"]

LIKELIHOODS = {
    "gaussian": "gaussian",
    "bernoulli": "bernoulli_logit",
    "binomial": "binomial_logit",
    "poisson": "poisson",
    "negative_binomial": "negative_binomial",
}
DIFFUSE = 1e4  # variance of fixed effects in REML: of orthonormal columns, by sample, in units of y's
CONVERGED = 1e-10
MANY_EFFECTS = 20_000  # GPBoost factorises sparse matrices up to here, and iterates above


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


class _Model:
    """
    GPBoost's model of a design with given L, in units of its own. Fixed effects that are ``diffuse`` around given
    values are random effects of a large variance; the values are taken off before, or digits would be lost.
    """

    def __init__(
        self, design: Design, likelihood: str, lower: Sequence[np.ndarray], diffuse: np.ndarray | None = None
    ) -> None:
        self.diffuse = diffuse is not None
        if diffuse is not None:
            design = design._replace(offset=design.offset + design.x @ diffuse)
        self.design, self.lower = design, lower
        self.gaussian = likelihood == "gaussian"
        root = np.sqrt(design.weight)[:, None] if self.gaussian else 1.0
        self.unit = design.y.std() if self.gaussian and design.y.std() > 0 else 1.0
        y = (design.y - design.offset) / self.unit if self.gaussian else design.y
        self.y = y * np.squeeze(root)
        self.offset = None if self.gaussian or not design.offset.any() else design.offset
        x = design.x * root
        self.scale = np.sqrt((x**2).mean(0)) if x.size else np.ones(x.shape[1])
        self.x = x / self.scale
        columns = [f.z @ low * root for f, low in zip(design.factors, lower)]
        self.column_scale = [np.maximum(np.sqrt((c**2).mean(0)), 1e-12) for c in columns]
        groups = [f.cluster for f in design.factors]
        columns = [c / s for c, s in zip(columns, self.column_scale)]
        self.own = sum(c.shape[1] for c in columns)
        if self.diffuse:
            q, self.r = np.linalg.qr(self.x)
            columns.append(q)
            groups.append(np.zeros(len(y), int))
        sizes = [c.shape[1] for c in columns]
        self.num_effects = sum(f.num_clusters * f.z.shape[1] for f in design.factors)
        exact = self.num_effects <= MANY_EFFECTS or len(groups) == 1
        kwargs: dict[str, Any] = {} if self.gaussian or (design.weight == 1).all() else {"weights": design.weight}
        self.gp = gpboost.GPModel(
            likelihood=LIKELIHOODS[likelihood],
            group_data=np.column_stack(groups),
            group_rand_coef_data=np.column_stack(columns),
            ind_effect_group_rand_coef=[k + 1 for k, size in enumerate(sizes) for _ in range(size)],
            drop_intercept_group_rand_effect=[True] * len(groups),
            matrix_inversion_method="cholesky" if exact else "default",
            num_parallel_threads=1,
            **kwargs,
        )

    def fit(self, start: np.ndarray | None = None, free: np.ndarray | None = None) -> _Model:
        """Maximise the likelihood; variances that are not ``free`` stay where they start."""
        params: dict[str, Any] = {"delta_rel_conv": CONVERGED}
        if start is not None:
            params["init_cov_pars"] = np.maximum(start, 1e-10)
        if free is not None:
            params["estimate_cov_par_index"] = np.asarray(free, int)
        x = None if self.diffuse or not self.x.shape[1] else self.x
        with redirect_stdout(None):  # at the maximum its line search finds nothing better, and it warns
            self.gp.fit(y=self.y, X=x, params=params, offset=self.offset)
        return self

    @property
    def variances(self) -> np.ndarray:
        """All of GPBoost's, in its units and order: that of the residual, then those of the columns."""
        return self.gp.get_cov_pars(format_pandas=False)

    def start(self, variances: Sequence[np.ndarray], residual: float | None) -> np.ndarray:
        """GPBoost's variances for those of the effects and the residual's s.d."""
        parts = [] if residual is None else [np.array([residual**2]) / self.unit**2]
        parts += [v * s**2 / self.unit**2 for v, s in zip(variances, self.column_scale)]
        if self.diffuse:
            parts.append(np.full(self.x.shape[1], DIFFUSE * len(self.y)))
        return np.concatenate(parts)

    def place(self, factor: int | None) -> int:
        """Where a factor's first effect, or the residual, is among GPBoost's variances."""
        return 0 if factor is None else self.gaussian + sum(len(s) for s in self.column_scale[:factor])

    def log_likelihood(self) -> float:
        """Log-likelihood, or restricted log-likelihood of a model with diffuse fixed effects, in the label's unit."""
        value = -self.gp.get_current_neg_log_likelihood()
        count = len(self.y)
        if self.diffuse:
            p = self.x.shape[1]
            count -= p
            value += p / 2 * np.log(2 * np.pi * DIFFUSE * len(self.y))
            value -= np.log(np.abs(np.diag(self.r)) * self.scale).sum()
        if self.gaussian:
            value += np.log(self.design.weight).sum() / 2 - count * np.log(self.unit)
        return float(value)

    def effects(self) -> tuple[float | None, list[np.ndarray]]:
        """Residual s.d., and the variances of each factor's v, in the label's unit."""
        found = self.variances * self.unit**2
        residual, found = (float(np.sqrt(found[0])), found[1:]) if self.gaussian else (None, found)
        variances = []
        for scale in self.column_scale:
            variances.append(found[: len(scale)] / scale**2)
            found = found[len(scale) :]
        return residual, variances

    def coefficients(self) -> np.ndarray:
        """Fixed effects."""
        if not self.x.shape[1]:
            return np.zeros(0)
        return self.gp.get_coef(format_pandas=False) * self.unit / self.scale

    def errors(self) -> np.ndarray:
        """Standard errors of the fixed effects, given the variances."""
        if not self.x.shape[1]:
            return np.zeros(0)
        return self.gp.get_coef(std_err=True, format_pandas=False)[1] * self.unit / self.scale


def estimate(design: Design, likelihood: str, restricted: bool = False, held: Held | None = None) -> Estimate:
    """
    Maximise the likelihood, by Laplace's approximation if it is not Gaussian, or the restricted likelihood.

    Args:
        design: what :py:func:`monai_armed.mixed_model.design.read_design` gives.
        likelihood: one of ``LIKELIHOODS``.
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
        model = _Model(design, likelihood, lower)
        start = model.start(variances, residual)
        model.fit(start, np.zeros(len(start)))
    shape = model.gp.get_aux_pars(format_pandas=False)
    known = None if likelihood != "negative_binomial" or shape is None else float(np.ravel(shape)[0])
    return Estimate(lower, variances, model.coefficients(), model.errors(), residual, known, log_likelihood)


def _fitted(
    design: Design, likelihood: str, lower: Sequence[np.ndarray], restricted: bool, held: Held | None
) -> _Model:
    if held is None:
        model = _Model(design, likelihood, lower).fit()
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
    model = _Model(design, likelihood, lower, center if restricted else None)
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
    model = _Model(design, likelihood, fit.lower)
    start = model.start(fit.variances, fit.residual)
    model.fit(start, np.zeros(len(start)))
    coefficients = model.coefficients()
    if not restricted:
        return model.log_likelihood(), coefficients
    model = _Model(design, likelihood, fit.lower, coefficients)
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
        likelihood: one of ``LIKELIHOODS``.
        fit: what :py:func:`estimate` found for them.
        diffuse: whether the fixed effects count as unknown, so that the covariances hold their uncertainty, too.

    Returns:
        the moments of each factor.
    """
    model = _Model(design, likelihood, fit.lower, fit.coefficients if diffuse else None)
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
    model: _Model, k: int, factor: Factor, low: np.ndarray, scale: np.ndarray, place: tuple[int, int]
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
