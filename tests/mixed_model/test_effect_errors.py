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

"""Intervals of random effects count what few clusters leave open of the variance components."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import norm

from monai_armed.mixed_model import fit_mixed_model, gaussian_fit
from monai_armed.networks import ARMED, DFNN

pytest.importorskip("gpboost")


def _fit(clusters: int, samples: int, sd: float = 1.0, seed: int = 0):
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(clusters), samples)
    y = 1 + sd * rng.normal(size=clusters)[cluster] + 1.5 * rng.normal(size=len(cluster))
    batch = {"image": torch.tensor(rng.normal(size=(len(y), 1))), "label": torch.tensor(y)}
    options = {"adversary": None, "nonlinear_slopes": False, "random_effects": {"learn_prior": True}}
    net = ARMED(DFNN(1, hidden_channels=()), clusters, (1,), **options).double()
    return fit_mixed_model(net, [{**batch, "cluster": torch.tensor(cluster)}], "ML"), cluster


def _on_a_grid(fit, cluster) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of a random intercept, integrated over a grid of its s.d. and the residual's, flat (log)."""
    x, y, same = fit.reduced.x, fit.reduced.y, cluster[:, None] == cluster
    logs, means, variances = [], [], []
    for sd in np.linspace(1e-3, 6, 120):
        for residual in np.geomspace(0.8, 2.6, 40):
            v = np.linalg.inv(residual**2 * np.eye(len(y)) + sd**2 * same)
            inside = x.T @ v @ x
            beta = np.linalg.solve(inside, x.T @ v @ y)
            rest = y - x @ beta
            logs.append((np.linalg.slogdet(v)[1] - rest @ v @ rest) / 2)
            z = (cluster == np.arange(cluster.max() + 1)[:, None]) * sd**2
            gain = z @ v
            means.append(gain @ rest)
            variances.append(sd**2 - (gain * z).sum(1) + ((gain @ x) * np.linalg.solve(inside, (gain @ x).T).T).sum(1))
    weights = np.exp(np.array(logs) - max(logs))
    weights /= weights.sum()
    mean = weights @ np.array(means)
    return mean, weights @ (np.array(variances) + (np.array(means) - mean) ** 2)


@pytest.mark.parametrize(("sd", "seed"), [(1.0, 0), (0.0, 1)])
def test_they_are_the_moments_over_the_posterior_of_the_components(sd, seed):
    """Also where the best s.d. is 0, with which every effect would be 0 and surely so."""
    fit, cluster = _fit(8, 6, sd, seed)
    assert (fit.VarCorr()["sd"][0] < 1e-3) == (sd == 0)
    table, (mean, variance) = fit.ranef(0.9), _on_a_grid(fit, cluster)
    half = np.sqrt(variance) * norm.ppf(0.95)
    np.testing.assert_allclose(table["high"] - table["low"], 2 * half, rtol=0.1)
    np.testing.assert_allclose((table["high"] + table["low"]) / 2, mean, atol=0.1 * half.mean())


def test_many_clusters_tell_the_components():
    fit, *_ = _fit(300, 4)
    width = (fit.ranef(0.9)["high"] - fit.ranef(0.9)["mean"]) / norm.ppf(0.95)
    np.testing.assert_allclose(width, np.sqrt(fit.unconditional[0].covariance[:, 0, 0]))


@pytest.mark.parametrize("seed", [6, 19])
def test_slopes_that_are_all_but_0_and_correlate_fully_are_not_surely_so(seed):
    """The search for the components' posterior starts at a singular covariance matrix, and does not stay there."""
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(20), 20)
    x = rng.normal(size=len(cluster))
    u = rng.normal(size=(20, 2)) * [0.5, 1.0]
    eta = 0.5 + u[cluster, 1] + (1 + u[cluster, 0]) * x
    y = rng.uniform(size=len(x)) < 1 / (1 + np.exp(-eta))
    effects = {"learn_prior": True, "covariance": "full"}
    options = {"adversary": None, "nonlinear_slopes": False, "linear_slopes": True, "random_effects": effects}
    net = ARMED(DFNN(1, hidden_channels=()), 20, (1,), **options).double()
    batch = {"image": torch.tensor(x[:, None]), "label": torch.tensor(y * 1.0), "cluster": torch.tensor(cluster)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*singular")
        fit = fit_mixed_model(net, [batch], "Laplace")
    components, table = fit.VarCorr(), fit.ranef(0.9)
    assert components["sd"][0] < 0.2 and abs(components["corr x0"][1]) > 0.98
    width = (table["high"] - table["low"])[table["effect"] == "x0"]
    assert width.mean() > 0.4  # an s.d. of .12


def test_a_profile_ends_where_the_likelihood_is_too_large_for_small_rises(monkeypatch):
    """With a residual of next to 0 it is some -1e10, and 1e-6 more is the same number."""
    searches = []

    def counted(*args, **options):
        searches.append(0)
        assert len(searches) < 500
        return minimize(*args, **options)

    monkeypatch.setattr(gaussian_fit, "minimize", counted)
    fit, _ = _fit(100, 10)
    table = fit.confint()
    assert (table["low"] < table["sd"]).all() and (table["sd"] < table["high"]).all()
