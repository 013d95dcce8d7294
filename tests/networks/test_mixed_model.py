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

"""A linear network with random slopes and intercept is a linear mixed model: it finds what statsmodels finds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from monai_armed.losses import ARMEDLoss, GaussianLikelihoodLoss
from monai_armed.networks import ARMED, DFNN

smf = pytest.importorskip("statsmodels.formula.api")


def _simulate() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(40), 25)
    x = rng.normal(size=len(cluster))
    u = rng.normal(size=(40, 2)) * [1.0, 0.6]
    y = 2 + 1.5 * x + u[cluster, 0] + u[cluster, 1] * x + rng.normal(size=len(cluster)) * 0.8
    return pd.DataFrame({"x": x, "y": y, "cluster": cluster})


def _fit(table: pd.DataFrame, covariance: str) -> tuple[ARMED, GaussianLikelihoodLoss]:
    torch.manual_seed(0)
    x, y = (torch.tensor(table[c].to_numpy(), dtype=torch.float32) for c in ("x", "y"))
    cluster = torch.tensor(table["cluster"].to_numpy())
    net = ARMED(
        DFNN(1, hidden_channels=()),
        40,
        (1,),
        adversary=None,
        random_effects={"learn_prior": True, "covariance": covariance, "prior_scale": 1.0, "posterior_scale": 0.3},
    )
    likelihood = GaussianLikelihoodLoss()
    loss = ARMEDLoss(likelihood, lambda_fixed=0, lambda_kl=1 / len(table))
    steps = 3000
    optimizer = torch.optim.Adam([*net.parameters(), *likelihood.parameters()], lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(net(x.unsqueeze(1), cluster), {"label": y, "cluster": cluster}).backward()
        optimizer.step()
        schedule.step()
    return net, likelihood


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_agrees_with_maximum_likelihood(covariance):
    table = _simulate()
    model = smf.mixedlm("y ~ x", table, groups="cluster", re_formula="~x").fit(reml=False)
    net, likelihood = _fit(table, covariance)
    # fixed effects: within a tenth of their standard errors
    assert abs(net.network.head.bias.item() - model.fe_params["Intercept"]) < 0.1 * model.bse_fe["Intercept"]
    assert abs(net.network.head.weight.item() - model.fe_params["x"]) < 0.1 * model.bse_fe["x"]
    # variance components and the residual's s.d.: within 5 %
    slope_sd, intercept_sd = net.random_effects.prior_scale.tolist()
    sd = np.sqrt(np.diag(model.cov_re))
    np.testing.assert_allclose([intercept_sd, slope_sd], sd, rtol=0.05)
    np.testing.assert_allclose(likelihood.scale.item(), np.sqrt(model.scale), rtol=0.05)
    # ranef
    ranef = np.array([v.to_numpy() for v in model.random_effects.values()])
    loc = net.random_effects.loc.detach().numpy()
    assert np.corrcoef(loc[:, 1], ranef[:, 0])[0, 1] > 0.99 and np.corrcoef(loc[:, 0], ranef[:, 1])[0, 1] > 0.99
