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

"""GPBoost's model of a design: its units, its order of the variances, and the way back from them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np
from monai.utils import optional_import

from .design import Design
from .whitening import column_size

gpboost, _ = optional_import("gpboost")

__all__ = ["LIKELIHOODS", "GroupedModel"]

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


class GroupedModel:
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
        self.column_scale = [column_size(c) for c in columns]
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
        with redirect_stdout(None):  # it tells the sum of the weights
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

    def fit(self, start: np.ndarray | None = None, free: np.ndarray | None = None) -> GroupedModel:
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
