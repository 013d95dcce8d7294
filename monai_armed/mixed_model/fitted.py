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

"""A fitted mixed model as lme4 shows it: fixed effects, variance components, random effects, printed in that order."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import norm, t

from .degrees import degrees_of_freedom
from .design import Design
from .effect_errors import with_component_errors
from .fixed_covariance import fixed_covariance
from .intervals import component_intervals
from .marginal import Estimate, MarginalLikelihood, Moments

__all__ = ["MixedModelFit"]


class MixedModelFit:
    """
    What :py:func:`monai_armed.mixed_model.fit_mixed_model` found; ``print`` shows it in the order of lme4's summary.

    Args:
        method: ``"ML"``, ``"REML"``, ``"Laplace"`` or ``"quadrature"``.
        marginal: the likelihood that was maximised.
        design: the data as they came, and
        reduced: without columns that follow from others.
        estimate: the fit, with NaN for such columns.
        conditional: moments of the random effects given the data and all estimates.
        unconditional: the same with the fixed effects unknown.
    """

    def __init__(
        self,
        method: str,
        marginal: MarginalLikelihood,
        design: Design,
        reduced: Design,
        estimate: Estimate,
        conditional: list[Moments],
        unconditional: list[Moments],
    ) -> None:
        self.method, self.marginal, self.likelihood = method, marginal, marginal.family
        self.design, self.reduced, self.estimate = design, reduced, estimate
        self.conditional, self.unconditional = conditional, unconditional
        self.levels: Mapping[str, Sequence[str]] = {}  # names of the clusters by factor, where they are known

    @property
    def log_likelihood(self) -> float:
        """Log-likelihood; with REML the restricted one."""
        return self.estimate.log_likelihood

    @property
    def num_parameters(self) -> int:
        """Number of fixed effects, variance components and further parameters of the likelihood."""
        components = sum(
            len(f.effects) * (len(f.effects) + 1) // 2 if f.correlated else len(f.effects) for f in self.design.factors
        )
        further = (self.estimate.residual is not None) + (self.estimate.shape is not None)
        return len(self.reduced.x_names) + components + further

    @property
    def aic(self) -> float:
        """Akaike's information criterion."""
        return 2 * self.num_parameters - 2 * self.log_likelihood

    @property
    def bic(self) -> float:
        """Bayesian information criterion."""
        return float(np.log(len(self.design.y))) * self.num_parameters - 2 * self.log_likelihood

    def fixef(self, level: float = 0.95) -> pd.DataFrame:
        """
        Fixed effects.

        Args:
            level: of Wald's confidence interval, with quantiles of Student's t.

        Returns:
            a row for each: ``effect``, ``estimate``, ``se``, ``z`` (their ratio), ``df`` of the interval, ``low``,
            ``high``; NaN where an effect cannot be told from those before it. The degrees of freedom are, of Gaussian
            labels, Satterthwaite's, as in lmerTest; of others, and where a variance component is 0, those by
            containment: of what does not vary within clusters, the clusters less the number of such effects, and
            infinite of what does and has no random slope. See :py:mod:`monai_armed.mixed_model.degrees`.
        """
        value, error = self.estimate.coefficients, self.estimate.errors
        half = t.ppf((1 + level) / 2, self._degrees) * error
        columns = {"estimate": value, "se": error, "z": value / error, "df": self._degrees}
        columns |= {"low": value - half, "high": value + half}
        return pd.DataFrame({"effect": self.design.x_names, **columns})

    def vcov(self) -> pd.DataFrame:
        """
        Covariance matrix of the fixed effects, lme4's ``vcov``: the variance of a contrast ``c`` is ``c @ vcov @ c``.

        Returns:
            rows and columns by the names of the effects, without those that cannot be told from others; the roots of
            its diagonal are the ``se`` of :py:meth:`fixef`.
        """
        names = self.reduced.x_names
        found = fixed_covariance(self.reduced, self.marginal, self._reduced_estimate, self.conditional)
        return pd.DataFrame(found, names, names)

    @property
    def _degrees_by(self) -> str:
        if self.likelihood != "gaussian":
            return "by containment (clusters less effects of what varies between them)"
        return "Satterthwaite's, at most those by containment where a variance component is 0"

    @functools.cached_property
    def _degrees(self) -> np.ndarray:
        degrees = np.full(len(self.estimate.coefficients), np.nan)
        found = degrees_of_freedom(self.reduced, self.marginal, self._reduced_estimate)
        degrees[np.isfinite(self.estimate.coefficients)] = found
        return degrees

    def VarCorr(self) -> pd.DataFrame:
        """
        Variance components.

        Returns:
            a row for each effect: ``factor``, ``effect``, ``variance``, ``sd`` and, where effects may correlate,
            ``corr <effect>`` with those before it; last the ``"Residual"`` of Gaussian labels.
        """
        rows = []
        for factor, covariance in zip(self.design.factors, self.estimate.covariances):
            sd = np.sqrt(np.diag(covariance))
            for i, effect in enumerate(factor.effects):
                row = {"factor": factor.name, "effect": effect, "variance": sd[i] ** 2, "sd": sd[i]}
                if factor.correlated:
                    with np.errstate(invalid="ignore"):
                        others = {f"corr {factor.effects[j]}": covariance[i, j] / (sd[i] * sd[j]) for j in range(i)}
                    row.update(others)
                rows.append(row)
        if self.estimate.residual is not None:
            variance = self.estimate.residual**2
            rows.append({"factor": "Residual", "effect": "", "variance": variance, "sd": self.estimate.residual})
        return pd.DataFrame(rows)

    def confint(
        self, method: str = "profile", level: float = 0.95, num_samples: int = 200, seed: int = 0
    ) -> pd.DataFrame:
        """
        Confidence intervals of the variance components' s.d.

        Args:
            method: ``"profile"`` of the likelihood (with REML of the restricted one), ``"wald"``, from its curvature in
                the logarithm of the s.d., or ``"bootstrap"``, from fits to simulated labels.
            level: of confidence.
            num_samples: simulated data sets of the bootstrap.
            seed: seed of the bootstrap.

        Returns:
            a row for each component: ``factor``, ``effect``, ``sd``, ``low``, ``high``; Wald's are NaN at 0.

        Raises:
            ValueError: when there is no such method.
        """
        fit = self._reduced_estimate
        return component_intervals(self.reduced, self.marginal, fit, method, level, num_samples, seed)

    @property
    def _reduced_estimate(self) -> Estimate:
        kept = np.isfinite(self.estimate.coefficients)
        return self.estimate._replace(coefficients=self.estimate.coefficients[kept], errors=self.estimate.errors[kept])

    @functools.cached_property
    def _wide(self) -> list[Moments]:
        """Moments with neither fixed effects nor variance components known."""
        return with_component_errors(self.reduced, self.marginal, self._reduced_estimate, self.unconditional)

    def ranef(self, level: float = 0.95) -> pd.DataFrame:
        """
        Random effects of every cluster.

        Args:
            level: probability inside the interval.

        Returns:
            a row for each cluster and effect: ``factor``, ``cluster`` (name or index), ``effect``, ``mean``, ``sd``
            (given the data and all estimates, lme4's condsd), and the ends ``low`` and ``high`` of an interval that
            holds the uncertainty of the fixed effects, too, and, of few clusters, that of the variance components: its
            middle is then the mean over what these can be, a little beside ``mean``.
        """
        tables = []
        for factor, given, unknown in zip(self.design.factors, self.conditional, self._wide):
            clusters, size = given.mean.shape
            sd, wide = (np.sqrt(m.covariance.diagonal(axis1=1, axis2=2).clip(min=0)) for m in (given, unknown))
            half = norm.ppf((1 + level) / 2) * wide
            columns = {"mean": given.mean, "sd": sd, "low": unknown.mean - half, "high": unknown.mean + half}
            index = {
                "factor": factor.name,
                "cluster": np.repeat(np.asarray(self.levels.get(factor.name, range(clusters))), size),
                "effect": factor.effects * clusters,
            }
            tables.append(pd.DataFrame({**index, **{name: value.reshape(-1) for name, value in columns.items()}}))
        return pd.concat(tables, ignore_index=True)

    def __str__(self) -> str:
        by = {"ML": "maximum likelihood", "REML": "REML"}.get(self.method, "maximum likelihood (Laplace Approximation)")
        if self.marginal.points > 1:
            by = f"maximum likelihood (Adaptive Gauss-Hermite Quadrature, nAGQ = {self.marginal.points})"
        kind = "Linear" if self.likelihood == "gaussian" else "Generalized linear"
        groups = "; ".join(f"{f.name}, {len(np.unique(f.cluster))}" for f in self.design.factors)
        family = "" if self.likelihood == "gaussian" else f"\n Family: {self.likelihood}"
        family += "" if self.estimate.shape is None else f"({self.estimate.shape:.4g})"
        criterion = "REML criterion" if self.method == "REML" else "deviance"
        return (
            f"{kind} mixed model fit by {by}{family}\n\n"
            f"AIC {self.aic:.1f}, BIC {self.bic:.1f}, log-likelihood {self.log_likelihood:.1f}, "
            f"{criterion} {-2 * self.log_likelihood:.1f}\n\n"
            f"Random effects:\n{_text(self.VarCorr())}\n"
            f"Number of obs: {len(self.design.y)}, groups: {groups}\n\n"
            f"Fixed effects:\n{_text(self.fixef()[['effect', 'estimate', 'se', 'z', 'df']])}\n"
            f"df of Student's t: {self._degrees_by}"
        )


def _text(table: pd.DataFrame) -> str:
    return table.to_string(index=False, na_rep="", float_format=lambda value: f"{value:.4g}")
