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

"""What a formula reads from a table: its digits, its labels, and new tables with the coding of the first."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from monai_armed.mixed_model import from_formula

pytest.importorskip("formulae")
pytest.importorskip("gpboost")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    site = np.repeat(np.arange(15), 12)
    x, f = rng.normal(size=len(site)), rng.choice(["lo", "hi"], len(site))
    y = 1 + 0.5 * x + (f == "hi") + rng.normal(size=15)[site] + rng.normal(size=len(site))
    trials = rng.integers(1, 6, len(site))
    frame = pd.DataFrame({"y": y, "x": x, "f": pd.Categorical(f, categories=["lo", "hi"]), "site": site})
    return frame.assign(word=np.where(y > 1, "yes", "no"), trials=trials, won=rng.binomial(trials, 0.4))


@pytest.mark.parametrize("column, far", [("y", 1e8), ("x", 1e5)])
@pytest.mark.parametrize("method", ["ML", "REML"])
def test_far_from_zero_no_digits_are_lost(table, column, far, method):
    near = from_formula("y ~ x + (1 | site)", table).fit(method)
    model = from_formula("y ~ x + (1 | site)", table.assign(**{column: table[column] + far}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = model.fit(method)
    assert fit.log_likelihood == pytest.approx(near.log_likelihood, abs=1e-5)
    np.testing.assert_allclose(fit.VarCorr()["sd"], near.VarCorr()["sd"], rtol=1e-4)
    assert fit.fixef().loc[1, "estimate"] == pytest.approx(near.fixef().loc[1, "estimate"], abs=1e-4)
    assert np.std(model.predict() - model.batch["label"].numpy()) < fit.VarCorr()["sd"].iloc[-1]


def test_nothing_is_said_of_arrays(table):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = from_formula("y ~ x + (1 | site)", table)
        model.fit()
    assert not model.net.training


def test_words_are_labels_as_in_r(table):
    formula = "word ~ x + (1 | site)"
    numbers = from_formula("word ~ x + (1 | site)", table.assign(word=(table["word"] == "yes") * 1.0), "bernoulli")
    wanted = numbers.fit().fixef()["estimate"]
    first = pd.Categorical(table["word"], categories=["yes", "no"])  # so that "yes" is the failure
    for data, of, sign, levels in (
        (table, formula, 1, ["no", "yes"]),
        (table.assign(word=table["word"].astype("category")), formula, 1, ["no", "yes"]),
        (table.assign(word=first), formula, -1, ["yes", "no"]),
        (table, formula.replace("word", "word['no']"), -1, None),
    ):
        model = from_formula(of, data, "bernoulli")
        assert model.label_levels == levels
        np.testing.assert_allclose(model.fit().fixef()["estimate"], sign * wanted, rtol=1e-4)


def test_successes_and_trials(table):
    pair = from_formula("p(won, trials) ~ x + (1 | site)", table, "binomial").fit()
    share = from_formula(
        "share ~ x + (1 | site)", table.assign(share=table["won"] / table["trials"]), "binomial", weights="trials"
    ).fit()
    assert pair.log_likelihood == pytest.approx(share.log_likelihood, abs=1e-9)
    with pytest.raises(ValueError, match="the label has its trials in the formula"):
        from_formula("p(won, trials) ~ x + (1 | site)", table, "binomial", weights="trials")


def test_ordered_levels_count_from_0(table):
    level = np.digitize(table["y"], [0, 1, 2])
    names = ["none", "some", "more", "most"]
    for values, levels in (
        (level + 1, ["1", "2", "3", "4"]),
        (10 * level, ["0", "10", "20", "30"]),
        (pd.Categorical.from_codes(level, [*names, "all"], ordered=True), names),
    ):
        model = from_formula("level ~ x + (1 | site)", table.assign(level=values), "ordinal")
        assert model.label_levels == levels and len(model.likelihood.thresholds) == 3
        np.testing.assert_array_equal(model.batch["label"], level)
    probability = model.predict(table[:2], scale="response")
    assert probability.shape == (2, 4)
    np.testing.assert_allclose(probability.sum(1), 1)


def test_a_new_table_has_the_coding_of_the_first(table):
    model = from_formula("y ~ scale(x) * f + offset(2 * x) + (scale(x) | site)", table, offset="x")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit()
    some = table.iloc[[100, 3, 40]]
    read = some.assign(f=some["f"].astype(str), site=some["site"].astype(str))  # as from a CSV file
    np.testing.assert_allclose(model.predict(read), model.predict()[[100, 3, 40]])
    new = read.assign(site=["new", None, "8"])
    np.testing.assert_array_equal(model.design(new)["site"], [-1, -1, 8])
    fixed = model.predict(new.drop(columns=["site", "y"]), "fixed")
    np.testing.assert_allclose(model.predict(new)[:2], fixed[:2])
    np.testing.assert_allclose(model.predict(effects="fixed")[[100, 3, 40]], model.predict(read, "fixed"))
    for wrong, message in (
        (new.drop(columns="site"), "the table has no column 'site'"),
        (new.drop(columns="x"), "the table has no column 'x'"),
        (new.assign(f="middle"), "The levels .middle. in 'f' are not present"),
    ):
        with pytest.raises(ValueError, match=message):
            model.predict(wrong)
    with pytest.raises(ValueError, match="scale must be 'link' or 'response', got 'odds'"):
        model.predict(scale="odds")


def test_predictions_in_the_unit_of_the_label(table):
    counts = table.assign(y=np.random.default_rng(2).poisson(np.exp(0.3 * table["x"])))
    for family, data, mean in (("poisson", counts, np.exp), ("bernoulli", counts.assign(y=counts["y"] > 0), None)):
        model = from_formula("y ~ x + (1 | site)", data, family)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit()
        link = model.predict()
        wanted = np.exp(link) if mean else 1 / (1 + np.exp(-link))
        np.testing.assert_allclose(model.predict(scale="response"), wanted)
