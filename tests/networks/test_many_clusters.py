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

"""More clusters than a training step goes over: estimated KL, draws for the batch alone, and no collapse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from monai_armed.losses import ARMEDLoss
from monai_armed.networks import ARMED, DFNN
from monai_armed.networks.layers import RandomEffects


def _moved(num_clusters: int, **kwargs) -> RandomEffects:
    torch.manual_seed(0)
    effects = RandomEffects(num_clusters, 2, posterior_scale=0.3, learn_prior=True, **kwargs)
    with torch.no_grad():
        effects.loc.normal_()
        effects.log_scale.add_(0.3 * torch.randn_like(effects.log_scale))
    return effects


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_estimated_kl_and_its_gradient_are_unbiased(covariance):
    effects = _moved(1500, covariance=covariance)
    wanted = effects.kl()
    gradient = torch.autograd.grad(wanted, effects.log_prior_scale)[0]
    estimates, gradients = [], []
    for _ in range(400):
        estimate = effects.kl(estimate=True)
        estimates.append(estimate.detach())
        gradients.append(torch.autograd.grad(estimate, effects.log_prior_scale)[0])
    for values, exact in ((torch.stack(estimates), wanted), (torch.stack(gradients), gradient)):
        error = values.std(0) / len(values) ** 0.5
        assert bool(((values.mean(0) - exact).abs() < 4 * error).all()) and bool((error < 0.02 * exact.abs()).all())


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_kl_of_batches_adds_up_to_that_of_all_clusters(covariance):
    effects = _moved(1500, covariance=covariance)
    torch.manual_seed(1)
    samples = torch.cat([torch.arange(1500), torch.randint(700, (3300,))])[torch.randperm(4800)]
    batches = samples.split(300)
    for batch in batches:  # after an epoch the clusters' shares are known
        effects(batch)
    estimates = []
    for batch in batches:
        effects(torch.cat([batch, torch.tensor([-1, -1])]))
        effects.samples_seen.index_add_(0, batch, -torch.ones(300))
        estimates.append(effects.kl(estimate=True).detach())
    torch.testing.assert_close(torch.stack(estimates).mean(), effects.kl().detach())


def test_kl_of_few_clusters_is_never_estimated():
    effects = _moved(1000)
    assert torch.equal(effects.kl(estimate=True), effects.kl())


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_samples_of_a_cluster_share_their_draw(covariance):
    effects = _moved(1500, covariance=covariance)
    index = torch.tensor([7, 1499, 7, -1, 0, 1499])
    draws = torch.stack([effects(index) for _ in range(4000)]).detach()
    assert torch.equal(draws[:, 0], draws[:, 2]) and torch.equal(draws[:, 1], draws[:, 5])
    assert abs(torch.corrcoef(draws[:, [0, 1, 4], 0].T)[0, 1:]).max() < 0.06  # clusters are drawn apart
    assert bool((draws[:, 3] == 0).all())
    torch.testing.assert_close(draws[:, 0].mean(0), effects.loc[7].detach(), atol=0.03, rtol=0)
    torch.testing.assert_close(draws[:, 0].std(0), effects.scale[7].detach(), atol=0, rtol=0.05)


@pytest.mark.parametrize("sampling", ["cluster", "sample"])
def test_random_intercepts_of_2000_clusters_do_not_collapse(sampling):
    # binary, ten samples a cluster, random intercepts of variance 1, whose posterior mean correlates about .7 with them
    rng = np.random.default_rng(0)
    b, cluster = rng.normal(size=2000), rng.integers(2000, size=25_000)
    features = rng.uniform(-1, 1, (len(cluster), 4)).astype(np.float32)
    fixed = features.sum(1)
    drawn = rng.uniform(size=len(cluster)) < 1 / (1 + np.exp(-fixed - b[cluster]))
    x, z, label = torch.tensor(features), torch.tensor(cluster), torch.tensor(drawn).float()
    train, test = slice(0, 20_000), slice(20_000, None)
    torch.manual_seed(0)
    options = {"prior_scale": 0.5, "learn_prior": True, "posterior_scale": 0.3, "sampling": sampling}
    net = ARMED(DFNN(4, 1, ()), 2000, (4,), adversary=None, nonlinear_slopes=False, random_effects=options)
    loss = ARMEDLoss(torch.nn.BCEWithLogitsLoss(), lambda_fixed=0, lambda_kl=1 / 20_000)
    epochs, size = 20, 500
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * 20_000 // size)
    for _ in range(epochs):
        for index in torch.randperm(20_000).split(size):
            optimizer.zero_grad()
            loss(net(x[train][index], z[train][index]), {"label": label[train][index]}).backward()
            optimizer.step()
            schedule.step()
    net.eval()
    with torch.no_grad():
        mixed, population = (net(x[test], z[test], effects=e).squeeze(1) for e in ("mixed", "fixed"))
    assert np.corrcoef(net.random_effects.loc.detach().squeeze(1), b)[0, 1] > 0.65
    assert 0.8 < net.random_effects.prior_scale.item() < 1.25
    ceiling, ignoring = (roc_auc_score(drawn[test], s) for s in (fixed[test] + b[cluster[test]], fixed[test]))
    assert roc_auc_score(label[test], population) > ignoring - 0.01
    assert roc_auc_score(label[test], mixed) > (ignoring + ceiling) / 2  # ten labels tell half of it at least
