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

"""Hyperparameters chosen in nested cross-validation: by the score alone, or by the leak."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from small_study import change, comparison_of, small_bundle

from monai_armed.__main__ import main
from monai_armed.compare.fold_search import choose_candidate, inner_tasks, write_search
from monai_armed.compare.fold_task import FEATURE_LEAK, fold_config
from monai_armed.compare.runner import compare
from monai_armed.metrics.audit import LayerFeatures
from monai_armed.metrics.strength import layer_leaks

STRENGTHS = {"lambda_adversary": [0.1, 0.3, 1.0, 3.0]}


@pytest.fixture
def bundle(tmp_path):
    root = small_bundle(tmp_path)
    change(root, "compare", models=["armed"])
    (root / "configs" / "search.json").write_text(json.dumps({"armed": STRENGTHS}))
    return root


def searched(bundle, out, scores, leaks):
    """A fold, and candidates whose inner folds have these figures (candidates, inner folds); NaN: it failed."""
    comparison = comparison_of(bundle, out, inner_folds=2)
    task = comparison.plan()[0][0]
    inner = inner_tasks(comparison.bundle, task, [task.parts] * 2)
    for group, own_scores, own_leaks in zip(inner, scores, leaks):
        for one, score, leak in zip(group, own_scores, own_leaks):
            key = {"partition": "seen", "model": "armed"}
            rows = [{**key, "metric": "accuracy", "value": score}, {**key, "metric": FEATURE_LEAK, "value": leak}]
            if np.isfinite(score):
                one.folder.mkdir(parents=True, exist_ok=True)
                one.save_result(comparison.bundle, rows)
    chosen = choose_candidate(comparison.bundle, task, inner)
    return comparison.bundle, chosen, json.loads((task.folder / "search.json").read_text())


# means .80, .82 (standard error .02), .81, .70
SCORES = [(0.78, 0.82), (0.80, 0.84), (0.79, 0.83), (0.70, 0.70)]
LEAKS = [(0.9, 0.7), (0.9, 0.9), (0.6, 0.7), (0.5, 0.5)]


@pytest.mark.parametrize(("rule", "strength"), [("score", 0.3), ("leak", 1.0)])
def test_a_rule_chooses(rule, strength, bundle, tmp_path):
    change(bundle, "compare", choose_by=rule)
    study, chosen, record = searched(bundle, tmp_path / "out", SCORES, LEAKS)
    assert chosen.overrides == {"lambda_adversary": strength} == record["candidates"][record["chosen"]]
    assert record["rule"] == rule and record["scores"] == pytest.approx([0.80, 0.82, 0.81, 0.70])
    assert record["standard_errors"] == pytest.approx([0.02, 0.02, 0.02, 0])
    assert ("leaks" in record) == (rule == "leak")
    (report := tmp_path / "report.md").write_text("# Title\n")
    table = pd.read_csv(write_search(study, [chosen], report)["search"])
    assert table["chosen"].tolist() == [s == strength for s in STRENGTHS["lambda_adversary"]]
    assert ("leak" in table) == (rule == "leak")
    text = report.read_text()
    assert text.startswith("# Title\n\n## What the search chose\n")
    assert ("one standard error of the best accuracy" in text) == (rule == "leak")
    figures = "0.810 | 0.020 | 0.650 | 1 of 1" if rule == "leak" else "0.820 | 0.020 | 1 of 1"
    assert f"| armed | lambda_adversary {strength} | {figures} |" in text


@pytest.mark.parametrize("rule", ["score", "leak"])
def test_a_candidate_that_failed_is_not_chosen(rule, bundle, tmp_path):
    change(bundle, "compare", choose_by=rule)
    scores = [(np.nan, 0.99), *SCORES[1:]]
    _, chosen, record = searched(bundle, tmp_path / "one", scores, LEAKS)
    assert chosen.overrides["lambda_adversary"] == (0.3 if rule == "score" else 1.0) and record["scores"][0] is None
    _, chosen, record = searched(bundle, tmp_path / "two", [(np.nan, np.nan)] * 4, LEAKS)
    assert chosen.overrides == {} and record["chosen"] is None


@pytest.mark.slow
def test_by_the_leak_from_search_to_report(bundle, tmp_path):
    change(bundle, "compare", choose_by="leak", models=["conventional", "armed"])
    change(bundle, "search", armed={"lambda_adversary": [0.1, 3.0]})
    out = tmp_path / "out"
    comparison = comparison_of(bundle, out, inner_folds=2)
    files = compare(comparison)
    results, table = pd.read_csv(files["results"]), pd.read_csv(files["search"])
    leaks = results[results["metric"] == FEATURE_LEAK]
    assert leaks.groupby("model")["fold"].nunique().to_dict() == {"armed": 2, "conventional": 2}
    assert leaks["value"].between(0.3, 1).all() and table.groupby("fold")["chosen"].sum().tolist() == [1, 1]
    for fold, part in table.groupby("fold"):
        best = part.loc[part["score"].idxmax()]
        near = part[part["score"] >= best["score"] - best["standard_error"]]
        near = near.assign(leak=near["leak"].clip(lower=0.5)).sort_values(["leak", "score"], ascending=[True, False])
        assert part["chosen"].idxmax() == near.index[0]
        used = json.loads((out / "simulation=1" / "armed" / f"fold_{fold:02d}" / "search.json").read_text())
        assert used["rule"] == "leak"
    report = files["report"].read_text()
    assert "unequal numbers of candidates: armed 2, conventional 1" in report and "lambda_adversary 3.0" in report

    # the leak is that of the samples that the fold was not trained on, from what its last hidden layer gives
    task = comparison.plan()[0][1]
    assert task.model == "conventional"
    parser = fold_config(comparison.bundle, "evaluate", task)
    network, partitions = parser.get_parsed_content("network"), parser.get_parsed_content("partitions")
    parts = []
    for name in ("train", "test"):
        image, label, cluster = (
            torch.as_tensor(np.array([i[k] for i in partitions[name]])) for k in ("image", "label", "cluster")
        )
        with torch.no_grad():
            hidden = network.hidden(image.float()).numpy()
        parts.append(LayerFeatures({"hidden": hidden}, cluster.numpy().ravel(), label.numpy().ravel()))
    found = task.result(comparison.bundle).set_index("metric")["value"]
    assert found[FEATURE_LEAK] == pytest.approx(layer_leaks(*parts)["hidden"], abs=1e-6)


def test_results_without_a_leak_are_scored_again(bundle, tmp_path):
    change(bundle, "compare", choose_by="leak", models=["conventional"])
    out = tmp_path / "out"
    compare(comparison_of(bundle, out))
    assert FEATURE_LEAK not in (out / "results.csv").read_text()
    files = compare(comparison_of(bundle, out, inner_folds=2))
    assert FEATURE_LEAK in files["results"].read_text()
    assert "No model has candidates" in files["report"].read_text() and "search" not in files


def test_what_cannot_be_chosen_by_is_said_before_anything_is_trained(bundle, tmp_path, capsys):
    words = ["compare", "--bundle", str(bundle), "--out", str(tmp_path / "out"), "--folds", "2", "--search"]
    change(bundle, "compare", choose_by="lowest leak")
    assert main(words) == 2
    assert "choose_by must be one of ('score', 'leak'), got 'lowest leak'" in capsys.readouterr().err
    change(bundle, "compare", choose_by="leak")
    change(bundle, "evaluate", audit=None)
    assert main(words) == 2
    assert "the evaluation of armed has no id 'audit'" in capsys.readouterr().err
