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


"""Adapting to a new cluster, on simulated mixed models with known truth."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from monai_armed.losses import ARMEDLoss, GaussianLikelihoodLoss
from monai_armed.networks import ARMED, DFNN, ZPredictor
from monai_armed.networks.adaptation import _warn_of_few_labels, adapt, checked_error
from monai_armed.networks.new_cluster_posterior import features_of, share_told

SLOPE_SD, INTERCEPT_SD = 1.2, 1.0
FIXED = torch.tensor([[1.0, -0.5]])


def true_net(covariance="diagonal") -> ARMED:
    """The logistic mixed model itself: its fixed effects and prior are the simulator's, so only u is to be found."""
    net = ARMED(
        DFNN(2, hidden_channels=()),
        3,
        (2,),
        adversary=None,
        random_effects={"prior_scale": {"nonlinear": SLOPE_SD, "intercept": INTERCEPT_SD}, "covariance": covariance},
    )
    with torch.no_grad():
        net.network.head.weight.copy_(FIXED)
        net.network.head.bias.zero_()
    return net.eval()


def site(seed: int, n: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    u = scale * torch.randn(3, generator=generator) * torch.tensor([SLOPE_SD, SLOPE_SD, INTERCEPT_SD])
    x = torch.randn(n, 2, generator=generator)
    logits = x @ (FIXED[0] + u[:2]) + u[2]
    return x, (torch.rand(n, generator=generator) < logits.sigmoid()).float()


def fitted_net(scale: float) -> ARMED:
    torch.manual_seed(0)
    x, y = map(torch.cat, zip(*(site(seed, 40, scale) for seed in range(30))))
    cluster = torch.arange(30).repeat_interleave(40)
    options = {"prior_scale": 0.5, "posterior_scale": 0.2, "learn_prior": True, "sampling": "sample"}
    net = ARMED(DFNN(2, hidden_channels=()), 30, (2,), adversary=None, random_effects=options)
    loss = ARMEDLoss(torch.nn.BCEWithLogitsLoss(), lambda_fixed=0, lambda_kl=1 / len(y))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
    for _ in range(400):
        optimizer.zero_grad()
        loss(net(x, cluster), {"label": y, "cluster": cluster}).backward()
        optimizer.step()
    return net.eval()


@pytest.mark.parametrize("scale", [1.0, 0.0], ids=["sites differ", "sites do not differ"])
def test_ten_labelled_samples_of_a_new_site(scale):
    net, gains = fitted_net(scale), []
    for seed in range(100, 112):
        x, y = site(seed, 1010, scale)
        adapted = adapt(net, x[:10], y[:10], torch.nn.BCEWithLogitsLoss(), steps=100)
        with torch.no_grad():
            score = adapted(x[10:], torch.full((1000,), 30)).squeeze(1)
            population = net(x[10:]).squeeze(1)
        gains.append(roc_auc_score(y[10:], score) - roc_auc_score(y[10:], population))
    print(f"AUROC gained: mean {np.mean(gains):.4f}, worst {min(gains):.4f}")
    assert np.mean(gains) > (0.02 if scale else -0.005)


@pytest.mark.parametrize("count", [10, 100, 1000])
@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_linear_posterior_is_exact(covariance, count):
    # conjugate: y = x (beta + u) + u_0 + e; for a full covariance the posterior is known in closed form, for a diagonal
    # one the variational mean is the same and the precision is the diagonal of the posterior's precision
    net = true_net(covariance)
    torch.manual_seed(0)
    x = torch.randn(count, 2)
    y = x @ torch.tensor([2.0, -1.0]) + 0.7 + 0.5 * torch.randn(count)
    adapted = adapt(net, x, y, GaussianLikelihoodLoss(0.5))
    design = torch.cat([x, torch.ones(count, 1)], 1).double()
    prior = torch.tensor([SLOPE_SD, SLOPE_SD, INTERCEPT_SD], dtype=torch.float64)
    precision = design.T @ design / 0.25 + (1 / prior.square()).diag()
    mean = torch.linalg.solve(precision, design.T @ (y - x @ FIXED[0]).double() / 0.25)
    effects = adapted.random_effects
    torch.testing.assert_close(effects.loc[3].double(), mean, atol=0.02, rtol=0)
    expected = precision.inverse().diagonal().sqrt() if covariance == "full" else precision.diagonal().rsqrt()
    torch.testing.assert_close(effects.scale[3].double(), expected, atol=0, rtol=0.05)
    if covariance == "full":
        found = effects.posterior().base_dist.covariance_matrix[3].double()
        torch.testing.assert_close(found, precision.inverse(), atol=5e-3, rtol=0)


def test_all_else_stays_as_it_is():
    torch.manual_seed(0)
    net = ARMED(DFNN(4, 1, (8,)), 3, (4,), adversary="dense")
    torch.nn.init.normal_(net.random_effects.loc)
    net.eval()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    x = torch.randn(12, 4)
    adapted = adapt(net, x, torch.ones(12), torch.nn.BCEWithLogitsLoss(), steps=20)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    index = torch.arange(12) % 4 - 1
    torch.testing.assert_close(adapted(x, index), net(x, index))
    assert adapted.num_clusters == 4 and net.num_clusters == 3
    assert bool((adapted(x, torch.full((12,), 3)) > net(x)).all())  # all labels are 1
    twice = adapt(adapted, x, torch.zeros(12), torch.nn.BCEWithLogitsLoss(), steps=20)
    assert bool((twice(x, torch.full((12,), 4)) < net(x)).all())
    assert net(x, index).shape == twice(x, index).shape
    adapted.train()(x, index)["mixed"].sum().backward()  # it can be trained on, too


def test_several_logits_multiplicative_and_dense_predictions():
    net = ARMED(DFNN(4, 3, (8,)), 2, (4,), adversary=None, multiplicative=True).eval()
    label = torch.full((6,), 2)
    adapted = adapt(net, torch.randn(6, 4), label, torch.nn.CrossEntropyLoss(), steps=20)
    assert adapted.random_effects.loc[2, -1] > adapted.random_effects.loc[2, -3:-1].max()
    image = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 1, 1))
    net = ARMED(image, 2, (1, 8, 8), adversary=None).eval()
    x = torch.randn(5, 1, 8, 8)
    adapted = adapt(net, x, torch.ones(5, 1, 8, 8), torch.nn.BCEWithLogitsLoss(), steps=20)
    assert adapted(x, torch.full((5,), 2)).mean() > net(x).mean()


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_without_labels_the_z_predictor_says_what_the_cluster_is_like(covariance):
    net = true_net(covariance)
    torch.nn.init.normal_(net.random_effects.loc)
    sure = torch.nn.Linear(2, 3)
    torch.nn.init.zeros_(sure.weight)
    sure.bias.data = torch.tensor([0.0, 50.0, 0.0])
    x = torch.randn(7, 2)
    net.attach_z_predictor(ZPredictor(sure, 3))
    effects = adapt(net, x).random_effects
    torch.testing.assert_close(effects.loc[3], effects.loc[1])
    torch.testing.assert_close(effects.scale[3], effects.scale[1], rtol=1e-3, atol=0)
    sure.bias.data = torch.zeros(3)
    adapted = adapt(net, x)
    effects = adapted.random_effects
    torch.testing.assert_close(effects.loc[3], effects.loc[:3].mean(0))
    between = effects.loc[:3].var(0, correction=0)
    torch.testing.assert_close(effects.scale[3], (effects.scale[:3].square().mean(0) + between).sqrt())
    torch.testing.assert_close(adapted(x), net(x))  # inferred clusters are the old ones
    net.attach_z_predictor(ZPredictor(sure, 3), max_entropy=0.5)  # knows nothing like it: the prior
    effects = adapt(net, x).random_effects
    torch.testing.assert_close(effects.scale[3], effects.prior_scale)
    assert bool((effects.loc[3] == 0).all())


def warned_of(net, x, y, **options) -> list[str]:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        adapt(net, x, y, torch.nn.BCEWithLogitsLoss(), steps=20, **options)
    return [str(warning.message) for warning in told if "labelled samples tell" in str(warning.message)]


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_labels_too_few_to_help_are_told(covariance):
    net, (x, y) = true_net(covariance), site(5, 40, 1.0)
    assert "1 labelled samples tell 0% of" in warned_of(net, x[:1], y[:1])[0]  # nothing of other samples
    assert "4 labelled samples tell" in warned_of(net, x[:4], y[:4])[0]
    assert not warned_of(net, x, y)


def test_the_share_that_is_told_is_that_of_the_linear_model():
    """Of a Gaussian model the posterior is known: what all other samples leave of each one's logit."""
    net, (x, _) = true_net("full"), site(5, 8, 1.0)
    y = torch.randn(8)
    error = checked_error(GaussianLikelihoodLoss(1.5), net(x), y)
    told = share_told(net.random_slopes["cluster"], features_of(net, x, "cluster", None), y, error, torch.zeros(3))
    z = torch.cat([x, torch.ones(8, 1)], 1).double() * torch.tensor([SLOPE_SD, SLOPE_SD, INTERCEPT_SD])
    left = []
    for i in range(8):
        others = z[torch.arange(8) != i]
        precision = torch.eye(3).double() + others.T @ others / 1.5**2
        left.append(z[i] @ torch.linalg.solve(precision, z[i]))
    assert told == pytest.approx(1 - float(sum(left) / z.square().sum()), rel=1e-4)


def test_the_share_of_clusters_that_get_worse_is_what_the_warning_says():
    """One effect, clusters as the prior says: 200,000 draws against the formula in the help of adapt."""
    generator = torch.Generator().manual_seed(0)
    for told in (0.1, 0.3, 0.45):
        effect = torch.randn(200_000, generator=generator)
        noise = torch.randn(200_000, generator=generator) * np.sqrt((1 - told) / told)
        found = told * (effect + noise)  # the posterior mean
        worse = float(((found - effect).abs() > effect.abs()).double().mean())
        with pytest.warns(UserWarning, match=f"tell {told:.0%} .* about {worse:.0%} of such clusters"):
            _warn_of_few_labels(told, 5)


def test_bad_input():
    net, x = true_net(), torch.randn(4, 2)
    bce = torch.nn.BCEWithLogitsLoss()
    with pytest.raises(ValueError, match="without labels only a Z-predictor can tell"):
        adapt(net, x)
    with pytest.raises(ValueError, match="labels need a loss"):
        adapt(net, x, torch.ones(4))
    with pytest.raises(ValueError, match=r"the mean over the samples, one number.*reduction='mean'"):
        adapt(net, x, torch.ones(4), torch.nn.BCEWithLogitsLoss(reduction="none"))
    with pytest.raises(ValueError, match="the mean over the samples"):
        adapt(net, x[:1], torch.ones(1), torch.nn.BCEWithLogitsLoss(reduction="none"))
    with pytest.raises(ValueError, match=r"pass its base loss, `loss\.loss`"):
        adapt(net, x, torch.ones(4), ARMEDLoss(bce))
    with pytest.raises(ValueError, match="got 4 samples and 3 labels"):
        adapt(net, x, torch.ones(3), bce)
    with pytest.raises(ValueError, match="at least one sample"):
        adapt(net, x[:0], torch.ones(0), bce)
    plain = ARMED(DFNN(2), 3, (2,), nonlinear_slopes=False, intercept=False)
    with pytest.raises(ValueError, match="no random effects to adapt"):
        adapt(plain, x, torch.ones(4), bce)
