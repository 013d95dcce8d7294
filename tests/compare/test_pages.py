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

"""The audit's page of each model of a comparison: made anew where it would be another one, and only there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from small_study import change, comparison_of, small_bundle

from monai_armed.audit import assess as audit
from monai_armed.compare.runner import compare
from monai_armed.studies.spirals.simulator import simulate_spirals


@pytest.fixture
def bundle(tmp_path):
    root = small_bundle(tmp_path)
    change(root, "compare", models=["conventional"])
    return root


@pytest.fixture
def assessed(monkeypatch) -> list[int]:
    """Grows by one with each evaluation of predictions."""
    calls, assess = [], audit.assess

    def counted(samples, readings):
        calls.append(len(samples.label))
        return assess(samples, readings)

    monkeypatch.setattr(audit, "assess", counted)
    return calls


def page(out: Path, model: str = "conventional") -> Path:
    return out / "simulation=1" / model / "report.html"


def test_a_page_is_made_once_of_the_same_and_anew_of_others(bundle, tmp_path, assessed):
    out = tmp_path / "out"
    first = comparison_of(bundle, out)
    report = compare(first)["report"].read_text(encoding="utf-8")
    made = page(out).read_text(encoding="utf-8")
    assert assessed == [120]

    again = compare(first)["report"].read_text(encoding="utf-8")
    assert assessed == [120] and page(out).read_text(encoding="utf-8") == made and again == report

    compare(replace(first, num_folds=3))
    assert assessed == [120, 120] and "test samples of 3 folds" in page(out).read_text(encoding="utf-8")
    compare(first)
    assert len(assessed) == 3 and page(out).read_text(encoding="utf-8") == made

    change(bundle, "train", learning_rate=0.01)  # each fold is trained again
    compare(first)
    retrained = page(out).read_text(encoding="utf-8")
    assert len(assessed) == 4 and retrained != made

    simulate_spirals(1, num_clusters=3, samples_per_cluster=30, seed=6).save(tmp_path / "sim1.npz")
    compare(first)
    assert assessed[4:] == [90] and page(out).read_text(encoding="utf-8") not in (made, retrained)


def test_folds_of_another_comparison_are_in_no_page(bundle, tmp_path, assessed):
    out = tmp_path / "out"
    compare(comparison_of(bundle, out))
    change(bundle, "conventional", learning_rate="$0.003 if @seed == 0 else -1")
    compare(comparison_of(bundle, out))
    assert assessed == [120, 60] and "test samples of 1 folds" in page(out).read_text(encoding="utf-8")

    change(bundle, "conventional", learning_rate=-1)
    with pytest.raises(ValueError, match="every fold failed"):
        compare(comparison_of(bundle, out))
    assert not page(out).exists() and len(assessed) == 2


def test_an_evaluation_without_predictions_has_no_page_of_an_earlier_one(bundle, tmp_path):
    out = tmp_path / "out"
    compare(comparison_of(bundle, out))
    score = {"partition": "seen", "prediction": "mixed", "metric": "mse", "value": 0.5}
    change(bundle, "evaluate", predictions=None, scores=[score])
    change(bundle, "compare", metrics=["mse"])
    compare(comparison_of(bundle, out))
    assert not page(out).exists()


def test_names_of_sites_are_not_numbers(bundle, tmp_path, monkeypatch):
    """Of sites 2 and 002 each is one."""
    out, sites = tmp_path / "out", []
    assess = audit.assess
    monkeypatch.setattr(
        audit, "assess", lambda samples, *rest: sites.append(set(samples.site)) or assess(samples, *rest)
    )
    files = compare(comparison_of(bundle, out))
    for table in out.rglob("predictions.csv"):
        lines = table.read_text(encoding="utf-8").splitlines()
        at = lines[0].split(",").index("cluster")
        rows = [line.split(",") for line in lines]
        for row in rows[1:]:
            row[at] = {"0": "002", "1": "2", "2": "3"}[row[at]]
        table.write_text("\n".join(map(",".join, rows)), encoding="utf-8")
    assert files["report"].is_file()
    compare(comparison_of(bundle, out))
    assert sites[1] == {"002", "2", "3"}


def test_a_study_with_predictions_of_its_own_kind_has_no_page(bundle, tmp_path, assessed):
    """As the cells, whose evaluation writes a page itself, into each fold."""
    comparison = comparison_of(bundle, tmp_path / "out")
    compare(comparison)
    for file in (tmp_path / "out").glob("simulation=1/conventional/fold_*/predictions.csv"):
        file.write_text("file,mixed,partition\na,0.5,test\n")
    report = compare(comparison)["report"].read_text(encoding="utf-8")
    assert len(assessed) == 1 and not page(tmp_path / "out").exists() and "report.html" not in report
