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

"""The benchmark with each site left out, on simulated people: it reads what people have, and its figures are right."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "left_out_sites"
NAMES = ("studies", "methods", "scores", "choice", "tradeoff", "run")
SITES, PEOPLE, FEATURES = 4, 60, 12


@pytest.fixture(scope="module")
def modules(benchmark_modules):
    """The benchmark's modules by name."""
    return benchmark_modules(FOLDER, NAMES)


def _people() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sites differ in age, and shift every feature; three features thin with age."""
    random = np.random.default_rng(0)
    site = np.repeat(np.arange(SITES), PEOPLE)
    age = 30 + 4.0 * site + 8 * random.standard_normal(len(site))
    x = random.standard_normal((len(site), FEATURES)) + 3 * random.standard_normal((SITES, FEATURES))[site]
    x[:, :3] -= 0.15 * (age - 40)[:, None]
    return x, age, site


@pytest.fixture(scope="module")
def thickness(tmp_path_factory) -> Path:
    x, age, site = _people()
    table = pd.DataFrame(x, columns=[f"area_{i}_thickness" for i in range(FEATURES)])
    table = table.assign(sub_id=[f"s{i}" for i in range(len(x))], age=age, sex=0, site=[f"city_{s}" for s in site])
    path = tmp_path_factory.mktemp("fcon") / "thickness.csv"
    table.to_csv(path, index=False)
    return path


def test_reading(modules, thickness, tmp_path):
    studies = modules["studies"]
    study = studies.read_fcon1000(thickness.parent)
    assert study.features.shape == (SITES * PEOPLE, FEATURES) and not study.is_class
    assert study.names == [f"city_{s}" for s in range(SITES)]
    correlation = np.clip(_people()[0] / 10, -1, 1).astype(np.float16)
    np.savez(
        tmp_path / "connectomes.npz", correlation=correlation, site=_people()[2].astype(str), asd=_people()[1] > 38
    )
    study = studies.read_abide(tmp_path)
    assert study.is_class and np.isfinite(study.features).all()
    with pytest.raises(FileNotFoundError, match=r"give the folder of thickness\.csv, or the file"):
        studies.read_fcon1000(tmp_path)
    pd.DataFrame({"age": [1.0]}).to_csv(tmp_path / "thickness.csv")
    with pytest.raises(ValueError, match=r"lacks the columns \['site'\]"):
        studies.read_fcon1000(tmp_path)


def test_erasure_within_the_label_hides_the_site_and_keeps_the_age(modules, thickness):
    study, methods = modules["studies"].read_fcon1000(thickness), modules["methods"].METHODS
    names = ("conventional", "site alone", "ARMED: erased within label")
    plain, alone, armed = (modules["scores"].score(study, methods[name]) for name in names)
    assert plain["site probe"] > 0.9 and alone["site probe"] == pytest.approx(1 / SITES, abs=0.01)
    assert armed["given label"] < armed["label alone"] + 0.1 < plain["given label"]
    assert armed["within site"] > plain["within site"] - 0.05
    assert armed["seen mixed"] > alone["seen mixed"] + 0.1
    assert armed["chance"] == 1 / SITES


def test_what_is_erased_is_chosen_on_training_people_alone(modules, thickness, capsys):
    study, methods, choice = modules["studies"].read_fcon1000(thickness), modules["methods"], modules["choice"]
    train, seen = study.site < SITES - 1, []

    def spied(method):
        def fit(x, y, site, is_class):
            seen.append(x)
            return method(x, y, site, is_class)

        return fit

    candidates = {
        "as it is, 100": lambda mixed: spied(methods.on_components(methods.conventional)),
        "erased, 100": lambda mixed: spied(methods.on_components(methods.armed(mixed))),
        "lost, 100": lambda mixed: spied(methods.on_components(methods.site_alone)),
    }
    people = study.features[train], study.label[train], study.site[train], False
    fitted = choice.chosen(candidates)(*people)
    assert fitted.recipe == "erased, 100" and fitted.mixed is not None
    assert "for 180 people of 3 sites erased, 100 is chosen of: as it is, 100 0." in capsys.readouterr().out
    known = {row.tobytes() for row in study.features[train]}
    assert len(seen) == 3 * 2 * choice.INNER_FOLDS + 1
    assert all(row.tobytes() in known for part in seen for row in part)


def test_components_are_as_many_as_asked_for(modules):
    x = np.random.default_rng(0).standard_normal((40, 60))
    prepare = modules["methods"].prepare
    assert prepare(x, 7)(x).shape == (40, 7) and prepare(x, 500)(x).shape == (40, 20)
    np.testing.assert_array_equal(prepare(x, 7)(x), prepare(x, 500)(x)[:, :7])
    assert prepare(x[:, :5])(x[:, :5]).shape == (40, 5)


def test_intercepts_are_taken_off_beside_the_label(modules, thickness):
    """A site's intercept is what is left of its mean when the label's part is taken off; a new site keeps its own."""
    x, age, site = _people()
    fitted = modules["methods"].intercepts()(x, age, site, False)
    left = fitted.features(x, site)
    slopes = np.linalg.lstsq(np.c_[np.ones(len(x)), age], left, rcond=None)[0]
    residual = left - np.c_[np.ones(len(x)), age] @ slopes
    assert max(abs(residual[site == s].mean(axis=0)).max() for s in range(SITES)) < 1e-8
    assert abs(slopes[1, :3] + 0.15).max() < 0.03 and fitted.mixed is not None
    np.testing.assert_array_equal(fitted.features(x, np.full(len(x), SITES)), x)


def test_the_trade_off_is_written(modules, thickness, tmp_path, monkeypatch):
    words = ["tradeoff.py", "fcon1000", "--data", str(thickness), "--out", str(tmp_path), "--components", "100"]
    monkeypatch.setattr(sys, "argv", words)
    modules["tradeoff"].main()
    table = pd.read_csv(tmp_path / "tradeoff_fcon1000.csv").set_index("directions")
    assert list(table.index) == [0, 1, 2, SITES - 1] and (tmp_path / "tradeoff_fcon1000.png").stat().st_size > 5000
    assert table.loc[0, "site probe"] > 0.9 and table.loc[SITES - 1, "site probe"] < 1 / SITES + 0.1


def test_a_run_writes_the_table(modules, thickness, tmp_path, monkeypatch, capsys):
    words = ["run.py", "fcon1000", "--data", str(thickness), "--out", str(tmp_path), "--methods", "conventional"]
    monkeypatch.setattr(sys, "argv", words)
    modules["run"].main()
    assert "| conventional |" in (tmp_path / "fcon1000" / "results.md").read_text()
    assert list(pd.read_csv(tmp_path / "fcon1000" / "results.csv")["model"]) == ["conventional"]
    assert "240 people of 4 sites, 12 features" in capsys.readouterr().out
