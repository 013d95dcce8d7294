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

"""Adaptive quadrature of several effects against integration on a fine grid, and what it is better at than Laplace."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit, gammaln, logsumexp
from scipy.stats import norm

from monai_armed.mixed_model import fit_mixed_model, quadrature
from monai_armed.mixed_model.design import Design, Factor
from monai_armed.mixed_model.gpboost_fit import GPBoostLikelihood
from monai_armed.mixed_model.quadrature import QuadratureModel
from monai_armed.mixed_model.quadrature_fit import QuadratureLikelihood
from monai_armed.mixed_model.standard_errors import curvature_by_differences
from monai_armed.networks import ARMED, DFNN

pytest.importorskip("gpboost")

CLUSTERS = 6
VALUES = np.array([-0.4, 0.7, 0.9, -0.5, 1.3])  # two fixed effects, and T row by row


def _design(family: str) -> Design:
    """A small one, with offset and weights; the last cluster has no samples."""
    rng = np.random.default_rng(0)
    cluster = rng.permutation(np.repeat(np.arange(CLUSTERS - 1), 4))
    x = np.column_stack([np.ones(len(cluster)), rng.normal(size=len(cluster))])
    weight = rng.integers(1, 5, len(cluster)).astype(float)
    share = rng.binomial(weight.astype(int), 0.4) / weight
    y = {"bernoulli": rng.integers(0, 2, len(cluster)), "binomial": share, "poisson": rng.poisson(2, len(cluster))}
    factor = Factor("z", CLUSTERS, cluster, x[:, ::-1], ["x", "(Intercept)"], True)
    offset = rng.normal(size=len(cluster))
    return Design(y[family].astype(float), x, ["(Intercept)", "x"], offset, weight, [factor])


def _on_a_grid(design: Design, family: str, values: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Log-likelihood, and mean and covariance of every cluster's v, by the trapezium rule in two dimensions."""
    line = np.linspace(-8, 8, 241)
    v = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    factor, tril = design.factors[0], np.array([[values[2], 0], [values[3], values[4]]])
    eta = (design.offset + design.x @ values[:2])[:, None] + factor.z @ tril @ v.T
    y, weight = design.y[:, None], design.weight[:, None]
    if family == "poisson":
        density = weight * (y * eta - np.exp(eta) - gammaln(y + 1))
    else:
        density = weight * (y * eta - np.logaddexp(0, eta))
    if family == "binomial":
        k = weight * y
        density += gammaln(weight + 1) - gammaln(k + 1) - gammaln(weight - k + 1)
    logs = np.tile(-(v**2).sum(1) / 2 - np.log(2 * np.pi) + 2 * np.log(line[1] - line[0]), (CLUSTERS, 1))
    np.add.at(logs, factor.cluster, density)
    integral = logsumexp(logs, 1)
    share = np.exp(logs - integral[:, None])
    mean = share @ v
    apart = v - mean[:, None]
    return integral.sum(), mean, np.einsum("ck,ckq,ckr->cqr", share, apart, apart)


@pytest.mark.parametrize("family", ["bernoulli", "binomial", "poisson"])
def test_it_is_the_integral(family, monkeypatch):
    """Value, gradient, information, means, covariances, and how the means move with the fixed effects."""
    monkeypatch.setattr(quadrature, "CHUNK", 9 * 1600)  # two chunks or more
    design = _design(family)
    model = QuadratureModel(design, family, 40)
    assert len(model.ends) > 2
    wanted, mean, covariance = _on_a_grid(design, family, VALUES)
    value, gradient = model.log_likelihood(VALUES)
    assert value == pytest.approx(wanted, abs=1e-6)
    steps = 1e-3 * np.eye(5)
    around = [[_on_a_grid(design, family, VALUES + sign * step) for sign in (1, -1)] for step in steps]
    np.testing.assert_allclose(gradient, [(a[0] - b[0]) / 2e-3 for a, b in around], atol=1e-4)
    numeric = [(model.log_likelihood(VALUES - s)[1] - model.log_likelihood(VALUES + s)[1]) / 2e-3 for s in steps]
    np.testing.assert_allclose(model.information(VALUES), numeric, atol=1e-3)
    found = model.moments(VALUES)
    np.testing.assert_allclose(found.mean, mean, atol=1e-5)
    np.testing.assert_allclose(found.covariance, covariance, atol=1e-5)
    np.testing.assert_allclose(found.slope, np.stack([(a[1] - b[1]) / 2e-3 for a, b in around[:2]], 2), atol=1e-4)
    np.testing.assert_allclose(found.covariance[-1], np.eye(2), atol=1e-8)  # no samples: the prior


def test_one_node_is_the_approximation_by_laplace():
    design = _design("bernoulli")
    model = QuadratureModel(design, "bernoulli", 1)
    fit = GPBoostLikelihood("bernoulli").estimate(design)
    tril = fit.lower[0] * np.sqrt(fit.variances[0])
    values = np.concatenate([fit.coefficients, tril[np.tril_indices(2)]])
    assert model.log_likelihood(values)[0] == pytest.approx(fit.log_likelihood, abs=1e-5)


def _simulated(clusters: int, samples: int, sd: tuple[float, ...], seed: int = 0) -> dict[str, torch.Tensor]:
    """Binary labels with uncorrelated slopes of all features and, last, an intercept."""
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(clusters), samples)
    x = rng.normal(size=(len(cluster), len(sd) - 1))
    u = rng.normal(size=(clusters, len(sd))) * sd
    label = rng.uniform(size=len(x)) < expit(0.5 + u[cluster, -1] + ((1 + u[cluster, :-1]) * x).sum(1))
    return {"image": torch.tensor(x), "label": torch.tensor(label * 1.0), "cluster": torch.tensor(cluster)}


def _network(clusters: int, slopes: int, covariance: str = "full") -> ARMED:
    torch.manual_seed(0)
    effects = {"learn_prior": True, "covariance": covariance}
    options = {"adversary": None, "nonlinear_slopes": False, "linear_slopes": slopes > 0, "random_effects": effects}
    return ARMED(DFNN(max(slopes, 1), hidden_channels=()), clusters, (max(slopes, 1),), **options).double()


def test_it_recovers_slopes_of_few_binary_labels_a_cluster():
    """Of 5 data sets the mean s.d. is the truth within its error, and Laplace's is not."""
    found: dict[str, list[np.ndarray]] = {"Laplace": [], "quadrature": []}
    for seed in range(5):
        data = _simulated(400, 5, (1.5, 2.0), seed)
        for method, sd in found.items():
            sd.append(fit_mixed_model(_network(400, 1, "diagonal"), [data], method).VarCorr()["sd"].to_numpy())
    error = np.std(found["quadrature"], 0, ddof=1) / 5**0.5
    off = {method: np.abs(np.mean(sd, 0) - (1.5, 2.0)) / error for method, sd in found.items()}
    assert (off["quadrature"] < 3).all() and (off["Laplace"] > 3).any()
    assert (off["quadrature"] < off["Laplace"]).all()


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_the_fit_is_the_maximum_and_its_curvature_that_of_the_likelihood(covariance):
    fit = fit_mixed_model(_network(80, 1, covariance), [_simulated(80, 8, (0.8, 1.0))], "quadrature")
    model = QuadratureModel(fit.reduced, "bernoulli", fit.marginal.points)
    tril = fit.estimate.lower[0] * np.sqrt(fit.estimate.variances[0])
    best = np.concatenate([fit.estimate.coefficients, tril[model.rows, model.columns]])
    highest = model.log_likelihood(best)[0]
    assert highest == pytest.approx(fit.log_likelihood, abs=1e-3)  # the fit's nodes are of the effects in its own order
    for step in 0.05 * np.eye(len(best)):
        assert max(model.log_likelihood(best + step)[0], model.log_likelihood(best - step)[0]) < highest
    full = np.linalg.inv(model.information(best))
    np.testing.assert_allclose(fit.fixef()["se"], np.sqrt(np.diag(full))[:2], rtol=1e-3)

    exact = fit.marginal.curvature(fit.reduced, fit.estimate)
    numeric = curvature_by_differences(fit.reduced, fit.marginal.profile, fit.estimate)
    np.testing.assert_allclose(exact.covariance, numeric.covariance, rtol=0.05, atol=1e-3)
    np.testing.assert_allclose(exact.slope, numeric.slope, atol=2e-3)


def test_the_profile_is_that_of_the_likelihood():
    """At its ends, with all else at its best by another optimiser, the likelihood is lower by half of 1.645^2."""
    fit = fit_mixed_model(_network(40, 1), [_simulated(40, 10, (1.0, 1.0))], "quadrature", quadrature_points=7)
    model = QuadratureModel(fit.reduced, "bernoulli", 7)
    ends = fit.confint("profile", 0.9).loc[0]
    tril = fit.estimate.lower[0] * np.sqrt(fit.estimate.variances[0])
    rest = np.append(fit.estimate.coefficients, tril[1])

    def lost(rest: np.ndarray, sd: float) -> float:
        return fit.log_likelihood - model.log_likelihood(np.insert(rest, 2, sd))[0]

    for end in (ends["low"], ends["high"]):
        found = minimize(lost, rest, args=(end,), method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-5})
        assert found.fun == pytest.approx(norm.ppf(0.95) ** 2 / 2, abs=0.02)


def test_the_interval_of_an_effect_holds_what_is_unknown():
    """Its width is more than the effect's s.d. given all estimates, and its middle the mean, not the mode."""
    fit = fit_mixed_model(_network(300, 0), [_simulated(300, 4, (0.0, 2.0))], "quadrature")
    table, moments = fit.ranef(0.9), fit.marginal.moments(fit.reduced, fit.estimate)[0]
    np.testing.assert_allclose((table["low"] + table["high"]) / 2, moments.mean[:, 0])
    model = QuadratureModel(fit.reduced, "bernoulli", fit.marginal.points)
    sd = fit.VarCorr()["sd"][0]
    given = model.moments(np.append(fit.estimate.coefficients, sd))
    assert (moments.covariance[:, 0, 0] > sd**2 * given.covariance[:, 0, 0].numpy()).all()
    np.testing.assert_allclose(table["mean"], sd * given.mode[:, 0], atol=1e-6)
    assert abs(table["mean"] - moments.mean[:, 0]).max() > 0.05


def test_without_fixed_effects():
    design, marginal = _design("bernoulli"), QuadratureLikelihood("bernoulli", 7)
    design = design._replace(x=design.x[:, :0], x_names=[])
    fit = marginal.estimate(design)
    assert marginal.profile(design, fit)[0] == pytest.approx(fit.log_likelihood, abs=0.02)
    (given,), (found,) = marginal.modes(design, fit), marginal.moments(design, fit)
    assert np.isfinite(given.covariance).all() and np.isfinite(found.covariance).all()


def test_a_design_has_one_model_and_another_design_its_own(monkeypatch):
    made = []

    def counted(*args):
        made.append(args[0])
        return QuadratureModel(*args)

    monkeypatch.setattr("monai_armed.mixed_model.quadrature_fit.QuadratureModel", counted)
    design, marginal = _design("bernoulli"), QuadratureLikelihood("bernoulli", 7)
    fit = marginal.estimate(design)
    made.clear()
    found = [marginal.profile(design, fit)[0], marginal.moments(design, fit)[0], marginal.modes(design, fit)[0]]
    assert len(made) == 1
    other = design._replace(y=1 - design.y)
    assert marginal.profile(other, fit)[0] != pytest.approx(found[0], abs=0.1) and len(made) == 2
    anew = QuadratureLikelihood("bernoulli", 7)
    assert anew.profile(design, fit)[0] == pytest.approx(found[0], abs=1e-6)
    for kept, fresh in zip(found[1:], (anew.moments(design, fit)[0], anew.modes(design, fit)[0])):
        np.testing.assert_allclose(kept.mean, fresh.mean, atol=1e-5)
        np.testing.assert_allclose(kept.covariance, fresh.covariance, rtol=1e-4)


def test_three_effects():
    data = _simulated(150, 12, (0.7, 0.9, 1.0))
    fit = fit_mixed_model(_network(150, 2), [data], "quadrature", quadrature_points=5)
    assert "nAGQ = 5" in str(fit)
    components = fit.VarCorr()
    assert components["sd"].tolist() == pytest.approx([0.7, 0.9, 1.0], abs=0.25)
    interval, truth = fit.confint("wald", 0.99), np.array([0.7, 0.9, 1.0])
    assert ((interval["low"] < truth) & (interval["high"] > truth)).all()


def test_effects_that_are_nothing_are_a_singular_fit():
    data = _simulated(60, 6, (0.0, 1.0), seed=3)
    with pytest.warns(UserWarning, match="singular fit"):
        fit = fit_mixed_model(_network(60, 1), [data], "quadrature")
    assert np.isfinite(fit.fixef()["se"]).all() and fit.confint("profile", 0.9)["low"].min() == 0


def test_what_it_cannot_integrate_is_refused():
    data = _simulated(40, 12, (0.5, 0.5, 0.5, 1.0))
    with pytest.raises(ValueError, match="one factor with at most 3 random effects a cluster, got 4 of 1 factor: use"):
        fit_mixed_model(_network(40, 3), [data], "quadrature")
    two = {**data, "site": data["cluster"], "scanner": data["cluster"] % 7}
    effects = {factor: {"learn_prior": True} for factor in ("site", "scanner")}
    options = {"adversary": None, "nonlinear_slopes": False, "random_effects": effects}
    net = ARMED(DFNN(3, hidden_channels=()), {"site": 40, "scanner": 7}, (3,), **options).double()
    with pytest.raises(ValueError, match=r"got 1 \+ 1 of 2 factors"):
        fit_mixed_model(net, [two], "quadrature")
