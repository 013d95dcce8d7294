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

"""The terms of a formula mean what they mean to lme4: which effects there are, which correlate, of which clusters."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import multivariate_normal

from monai_armed.mixed_model import MixedModelFit, from_formula

pytest.importorskip("formulae")
pytest.importorskip("gpboost")


def _table(clusters: int = 20, size: int = 9, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    site = np.repeat(np.arange(clusters), size)
    (x, z), f = rng.normal(size=(2, len(site))), rng.choice(["A", "B"], len(site))
    u = rng.normal(size=(clusters, 4))[site]
    mean = 1 + 0.5 * x + u[:, 0] + 0.7 * u[:, 1] * x + 0.8 * u[:, 2] * z + u[:, 3] * (f == "B")
    return pd.DataFrame({"y": mean + rng.normal(size=len(site)), "x": x, "z": z, "f": f, "site": site})


def _fit(formula: str, table: pd.DataFrame, family: str = "gaussian", method: str = "ML") -> MixedModelFit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return from_formula(formula, table, family).fit(method)


def _dense(fit: MixedModelFit, table: pd.DataFrame, blocks: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Log-likelihood with the fit's estimates, from the covariance of all labels: of each block the columns and C."""
    same = table["site"].to_numpy()[:, None] == table["site"].to_numpy()
    covariance = fit.VarCorr()["variance"].iloc[-1] * np.eye(len(table))
    for z, of_effects in blocks:
        covariance = covariance + same * (z @ of_effects @ z.T)
    fixed = fit.fixef().set_index("effect")["estimate"]
    mean = fixed["(Intercept)"] + fixed["x"] * table["x"].to_numpy()
    return multivariate_normal.logpdf(table["y"], mean, covariance)


def test_terms_of_one_factor_are_independent_of_one_another():
    table = _table()
    apart, bars = (_fit(f"y ~ x + {terms}", table) for terms in ("(1 | site) + (0 + x | site)", "(x || site)"))
    assert apart.log_likelihood == pytest.approx(bars.log_likelihood, abs=1e-6) and apart.num_parameters == 5
    fit = _fit("y ~ x + (x | site) + (0 + z | site)", table)
    assert fit.num_parameters == 2 + 3 + 1 + 1
    components = fit.VarCorr()
    assert list(components["factor"]) == ["site", "site", "site_1", "Residual"]
    ones, x, z = np.ones(len(table)), table["x"].to_numpy(), table["z"].to_numpy()
    blocks = [(np.stack([x, ones], 1), fit.estimate.covariances[0]), (z[:, None], fit.estimate.covariances[1])]
    assert fit.log_likelihood == pytest.approx(_dense(fit, table, blocks), abs=1e-3)
    assert fit.log_likelihood > bars.log_likelihood + 1


def test_independent_terms_of_one_factor_are_not_called_the_same():
    model = from_formula("y ~ x + (x | site) + (0 + z | site)", _table())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit("ML")
    assert not any("same clusters" in str(warning.message) for warning in caught)
    with pytest.warns(UserWarning, match="have the same clusters and effects"):
        from_formula("y ~ x + (1 | site) + (1 | copy)", _table().assign(copy=lambda t: t["site"])).fit("ML")


@pytest.mark.parametrize(
    "term, effects",
    [
        ("(0 + f | site)", ["f[A]", "f[B]"]),
        ("(x:f | site)", ["x:f[A]", "x:f[B]", "(Intercept)"]),
        ("(0 + x:f | site)", ["x:f[A]", "x:f[B]"]),
        ("(x - 1 | site)", ["x"]),
        ("(scale(x) || site)", ["scale(x)", "(Intercept)"]),
        ("(I(x**2) + z | site)", ["I(x ** 2)", "z", "(Intercept)"]),
    ],
)
def test_random_effects_have_columns_of_their_own(term, effects):
    model = from_formula(f"y ~ f + z + {term}", _table())
    names = [name for _, name in model.net.random_slopes["site"].effect_names(feature_names=model.feature_names)]
    assert names == effects
    assert model.net.network.head.in_features == 2  # f[B] and z: further columns are not fixed effects


def test_levels_of_a_factor_or_their_differences_are_the_same_model():
    table = _table(15, 8, seed=3)
    levels, differences = (_fit(f"y ~ f + {term}", table) for term in ("(0 + f | site)", "(f | site)"))
    assert levels.num_parameters == differences.num_parameters == 6
    assert levels.log_likelihood == pytest.approx(differences.log_likelihood, abs=0.02)


def test_slopes_need_no_fixed_effect():
    table = _table()
    fit = _fit("y ~ 1 + (0 + x | site)", table)
    assert list(fit.fixef()["effect"]) == ["(Intercept)"] and list(fit.VarCorr()["effect"]) == ["x", ""]
    both = _fit("y ~ x + (0 + x | site)", table)
    assert both.log_likelihood > fit.log_likelihood


def test_slopes_in_another_order_than_the_fixed_effects_keep_their_names():
    table = _table()
    one, other = (_fit(f"y ~ x + z + ({slopes} || site)", table) for slopes in ("x + z", "z + x"))
    sd = [fit.VarCorr().set_index("effect")["sd"] for fit in (one, other)]
    pd.testing.assert_series_equal(*(values.sort_index() for values in sd), rtol=1e-4)


def test_an_offset_is_not_estimated():
    table = _table().assign(y=lambda t: np.random.default_rng(1).poisson(np.exp(0.3 * t["x"] + 0.4 * t["z"])))
    table["twice"] = 2 * table["z"]
    fit = _fit("y ~ x + offset(2 * z) + (1 | site)", table, "poisson", "Laplace")
    assert list(fit.fixef()["effect"]) == ["(Intercept)", "x"]
    column = from_formula("y ~ x + (1 | site)", table, "poisson", offset="twice").fit()
    assert fit.log_likelihood == pytest.approx(column.log_likelihood, abs=1e-8)


def test_numbers_are_their_own_clusters():
    table = _table(12)
    model = from_formula("y ~ x + (1 | site)", table)
    assert model.levels["site"] == [str(k) for k in range(12)]
    assert torch.equal(model.batch["site"], torch.tensor(table["site"].to_numpy()))
    fit = model.fit()
    logits = model.net(model.batch["image"], torch.tensor(table["site"].to_numpy()))  # in evaluation mode after the fit
    np.testing.assert_allclose(logits.detach().numpy()[:, 0], model.predict())
    assert list(fit.ranef()["cluster"]) == model.levels["site"]
    words = from_formula("y ~ x + (1 | site)", table.assign(site=[f"s{k}" for k in table["site"]]))
    assert words.levels["site"][:3] == ["s0", "s1", "s10"]
    kinds = pd.Categorical.from_codes(table["site"] % 3, ["third", "first", "second", "empty"])
    assert from_formula("y ~ x + (1 | kind)", table.assign(kind=kinds)).levels["kind"] == ["third", "first", "second"]


@pytest.mark.parametrize(
    "name", ["label", "image", "offset", "weight", "cluster", "training", "type", "items", "site.id", "site id", "1st"]
)
def test_any_column_may_be_the_factor(name):
    table = _table(6)
    renamed = table.rename(columns={"site": name})
    plain, model = from_formula("y ~ x + (1 | site)", table), from_formula(f"y ~ x + (1 | `{name}`)", renamed)
    assert model.fit().log_likelihood == pytest.approx(plain.fit().log_likelihood, abs=1e-9)
    np.testing.assert_allclose(model.predict(renamed[:3]), plain.predict(table[:3]))


def test_any_column_may_have_an_effect():
    table = _table(6).rename(columns={"x": "x 1", "z": "label"})
    fit = _fit("y ~ `x 1` + label + (0 + `x 1` | site)", table)
    assert list(fit.fixef()["effect"]) == ["(Intercept)", "x 1", "label"]


def test_clusters_and_factors_that_are_joined_do_not_collide():
    table = _table(6).assign(p=lambda t: np.where(t["site"] % 2, "a:b", "a"))
    table = table.assign(q=lambda t: np.where(t["site"] % 2, "c", "b:c"), site_p=lambda t: t.index % 3)
    assert from_formula("y ~ x + (1 | p:q)", table).levels == {"p_q": ["'a':'b:c'", "'a:b':'c'"]}
    levels = from_formula("y ~ x + (1 | site / p) + (1 | site_p)", table).levels
    assert {name: len(names) for name, names in levels.items()} == {"site": 6, "site_p_": 6, "site_p": 3}
