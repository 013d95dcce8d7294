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

"""Variance components of nested and crossed factors, against statsmodels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from monai_armed.losses import ARMEDLoss, GaussianLikelihoodLoss
from monai_armed.metrics.mixed_model import VarCorr, fixef, ranef
from monai_armed.networks import ARMED, DFNN

FACTORS = {"site": 3, "subject": 6}


def _simulate(design: str) -> tuple[pd.DataFrame, list[str]]:
    """A linear mixed model: 30 sites of 10 subjects of 8 samples, or 20 batches by 25 operators, 2 samples of each."""
    rng = np.random.default_rng(0)
    if design == "nested":
        names, (second, first) = ["site", "subject"], (np.repeat(np.arange(300), 8), np.repeat(np.arange(30), 80))
    else:
        names, pairs = ["batch", "operator"], np.repeat(np.arange(500), 2)
        first, second = pairs // 25, pairs % 25
    x = rng.normal(size=len(first))
    u = 1.0 * rng.normal(size=30)[first] + 0.7 * rng.normal(size=300)[second]
    y = 2 + 1.5 * x + u + 0.8 * rng.normal(size=len(x))
    return pd.DataFrame({"x": x, "y": y, names[0]: first, names[1]: second}), names


def _fit(table: pd.DataFrame, factors: list[str]) -> tuple[ARMED, GaussianLikelihoodLoss]:
    torch.manual_seed(0)
    x, y = (torch.tensor(table[c].to_numpy(), dtype=torch.float32) for c in ("x", "y"))
    cluster = {name: torch.tensor(table[name].to_numpy()) for name in factors}
    sizes = {name: int(index.max()) + 1 for name, index in cluster.items()}
    of_each = {"prior_scale": 0.5, "posterior_scale": 0.3, "learn_prior": True, "sampling": "sample"}
    options = {"adversary": None, "nonlinear_slopes": False, "random_effects": dict.fromkeys(factors, of_each)}
    net = ARMED(DFNN(1, hidden_channels=()), sizes, (1,), **options)
    likelihood = GaussianLikelihoodLoss()
    loss = ARMEDLoss(likelihood, lambda_fixed=0, lambda_kl=1 / len(y))
    optimizer = torch.optim.Adam([*net.parameters(), *likelihood.parameters()], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 800)
    for _ in range(800):
        optimizer.zero_grad()
        loss(net(x.unsqueeze(1), cluster), {"label": y}).backward()
        optimizer.step()
        schedule.step()
    return net.eval(), likelihood


@pytest.mark.parametrize("design", ["nested", "crossed"])
def test_variance_components_agree_with_statsmodels(design):
    smf = pytest.importorskip("statsmodels.formula.api")
    table, names = _simulate(design)
    of_each = {name: f"0 + C({name})" for name in names}
    if design == "nested":
        groups, rest = "site", {"re_formula": "1", "vc_formula": {"subject": of_each["subject"]}}
    else:
        groups, rest = np.zeros(len(table)), {"re_formula": "0", "vc_formula": of_each}
    model = smf.mixedlm("y ~ x", table, groups=groups, **rest).fit(reml=False)
    wanted = [*np.sqrt(np.diag(model.cov_re)), *np.sqrt(model.vcomp), np.sqrt(model.scale)]
    net, likelihood = _fit(table, names)
    components = VarCorr(net, likelihood.scale.item())
    assert components["factor"].tolist()[:2] == names
    np.testing.assert_allclose(components["sd"], wanted, rtol=0.1)
    fixed = fixef(net, ["x"]).set_index("effect")["estimate"]
    assert abs(fixed["x"] - model.fe_params["x"]) < 0.1 * model.bse_fe["x"]
    if design == "nested":  # statsmodels gives a site's effects as one series: its own, then those of its subjects
        found = ranef(net).set_index(["factor", "cluster"])["mean"]
        of_site, *of_subjects = zip(*(v.to_numpy() for v in model.random_effects.values()))
        assert np.corrcoef(found["site"], of_site)[0, 1] > 0.99
        assert np.corrcoef(found["subject"], np.array(of_subjects).T.reshape(-1))[0, 1] > 0.99
