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

"""Fits of small simulated designs end at the maximum: none is below what another maximiser finds from many starts."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from monai_armed.mixed_model import from_formula

pytest.importorskip("gpboost")
pytest.importorskip("formulae")

DESIGNS = 60
STARTS = [(1, 0, 1), (0.1, 0, 0.1), (0.5, 0.4, 0.1), (0.5, -0.4, 0.1), (0.1, 0.4, 0.1)]


def _simulated(seed: int) -> pd.DataFrame:
    """Five to twenty clusters, a covariate of mean 0, 3 or -20, an intercept and slopes that may correlate."""
    rng = np.random.default_rng(seed)
    clusters = int(rng.integers(5, 21))
    g = np.repeat(np.arange(clusters), rng.integers(2, 10, clusters))
    mean, slope, correlation = (
        rng.choice([0.0, 3.0, -20.0]),
        rng.choice([0.0, 0.2, 0.5]),
        rng.choice([-1, -0.7, 0, 0.9]),
    )
    x = rng.normal(size=len(g))
    a, b = rng.normal(size=(2, clusters))
    b = slope * (correlation * a + np.sqrt(1 - correlation**2) * b)
    y = 1 + 0.5 * x + a[g] + b[g] * x + rng.normal(size=len(g))
    return pd.DataFrame({"y": y, "x": x + mean, "g": g})


def _highest(data: pd.DataFrame, restricted: bool) -> float:
    """Log-likelihood of y ~ x + (x | g) from dense covariance matrices; the fixed effects as they maximise it."""
    count, shift = len(data), data["x"].mean()  # of centred x: the same model, and the same determinant
    x, y = np.column_stack([np.ones(count), data["x"] - shift]), data["y"].to_numpy()
    same = data["g"].to_numpy()[:, None] == data["g"].to_numpy()
    degrees = count - 2 * restricted

    def lost(values: np.ndarray) -> float:
        tril = np.array([[values[0], 0], [values[1], values[2]]])
        root = np.linalg.cholesky(np.eye(count) + (x @ tril @ tril.T @ x.T) * same)
        half = np.linalg.solve(root, np.column_stack([x, y]))
        inner = half[:, :2].T @ half[:, :2]
        rest = half[:, 2] - half[:, :2] @ np.linalg.solve(inner, half[:, :2].T @ half[:, 2])
        value = np.log(np.diag(root)).sum() + degrees / 2 * (1 + np.log(2 * np.pi * rest @ rest / degrees))
        return value + restricted * np.linalg.slogdet(inner)[1] / 2

    return max(-minimize(lost, start, method="BFGS").fun for start in STARTS)


def _fit(formula: str, data: pd.DataFrame, *args: str, method: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return from_formula(formula, data, *args).fit(method)


@pytest.mark.parametrize("method", ["ML", "REML"])
def test_correlated_slopes_reach_the_maximum(method):
    gaps = []
    for seed in range(DESIGNS):
        data = _simulated(seed)
        found = _fit("y ~ x + (x | g)", data, method=method).log_likelihood
        gaps.append(_highest(data, method == "REML") - found)
    assert len(gaps) == DESIGNS and max(gaps) < 0.01, gaps


def test_laplace_does_not_depend_on_where_the_covariate_is():
    rng = np.random.default_rng(0)
    for _ in range(4):
        g = np.repeat(np.arange(25), 12)
        x, u = rng.normal(size=300), rng.normal(size=(25, 2)) * [0.8, 0.35]
        y = rng.binomial(1, expit(0.3 + 0.4 * x + u[g, 0] + u[g, 1] * x))
        fits = [
            _fit("y ~ x + (x | g)", pd.DataFrame({"y": y, "x": x + c, "g": g}), "bernoulli", method="Laplace")
            for c in (0.0, 3.0)
        ]
        assert fits[0].log_likelihood == pytest.approx(fits[1].log_likelihood, abs=0.01)


def test_reml_leaves_where_ml_is_zero():
    """Two factors, of which ML has one at 0: REML has it above."""
    rng = np.random.default_rng(10)
    rises = 0
    for _ in range(12):
        a, b = rng.integers(0, 5, 50), rng.integers(0, 6, 50)
        y = 0.3 * rng.normal(size=5)[a] + rng.normal(size=6)[b] + rng.normal(size=50)
        data = pd.DataFrame({"y": y, "x": rng.normal(size=50), "a": a, "b": b})
        fit = _fit("y ~ x + (1 | a) + (1 | b)", data, method="REML")
        at = fit.estimate
        for share in (0.05, 0.1, 0.2, 0.4):
            variances = [v if k else np.array([share * at.residual**2]) for k, v in enumerate(at.variances)]
            other = fit.marginal.profile(fit.reduced, at._replace(variances=variances))[0]
            assert other < fit.log_likelihood + 0.01
        rises += at.variances[0][0] > 1e-4
    assert rises > 3
