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

import numpy as np
import pytest
import torch
from scipy.stats import norm

from monai_armed.mixed_model import fit_mixed_model
from monai_armed.mixed_model.standard_errors import theta_curvature
from monai_armed.networks import ARMED, DFNN

pytest.importorskip("gpboost")


def _fit(clusters: int, samples: int):
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(clusters), samples)
    y = 1 + rng.normal(size=clusters)[cluster] + 1.5 * rng.normal(size=len(cluster))
    batch = {"image": torch.tensor(rng.normal(size=(len(y), 1))), "label": torch.tensor(y)}
    options = {"adversary": None, "nonlinear_slopes": False, "random_effects": {"learn_prior": True}}
    net = ARMED(DFNN(1, hidden_channels=()), clusters, (1,), **options).double()
    return fit_mixed_model(net, [{**batch, "cluster": torch.tensor(cluster)}], "ML"), y, cluster, samples


def test_they_are_the_total_variance_over_the_components():
    """A balanced random intercept, whose moments are known in closed form, over 20,000 draws of the components."""
    fit, y, cluster, samples = _fit(12, 8)
    curvature = theta_curvature(fit.reduced, "gaussian", fit.estimate, False)
    rng, names = np.random.default_rng(1), [kind for kind, _, _ in curvature.free]
    draws = np.exp(rng.multivariate_normal(curvature.theta, curvature.covariance, 20_000))
    residual, variance = (draws[:, names.index(name)] for name in ("residual", "variance"))
    shrink = variance / (variance + residual / samples)
    table, inside = fit.ranef(0.9), fit.unconditional[0].covariance[:, 0, 0]
    means = np.array([y[cluster == j].mean() for j in range(12)])
    deviation = means - means.mean()
    best = fit.estimate.variances[0][0] / (fit.estimate.variances[0][0] + fit.estimate.residual**2 / samples)
    between = ((shrink - best) ** 2).mean() * deviation**2
    given = shrink * residual / samples + shrink**2 * (variance + residual / samples) / 12
    width = (table["high"] - table["low"]).to_numpy() / 2 / norm.ppf(0.95)
    np.testing.assert_allclose(width**2, given.mean() + between, rtol=0.1)
    assert (width**2 > 1.02 * inside).any()


def test_many_clusters_tell_the_components():
    fit, *_ = _fit(300, 4)
    width = (fit.ranef(0.9)["high"] - fit.ranef(0.9)["mean"]) / norm.ppf(0.95)
    np.testing.assert_allclose(width, np.sqrt(fit.unconditional[0].covariance[:, 0, 0]))
