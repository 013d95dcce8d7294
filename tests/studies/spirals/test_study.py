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

"""The spiral study on small data: Table 2's rows, its starts, and the figures."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from monai_armed.compare.runner import Comparison
from monai_armed.compare.study_bundle import StudyBundle
from monai_armed.studies.spirals.simulator import simulate_spirals
from monai_armed.studies.spirals.study import spiral_study

SPIRALS = Path(__file__).parents[3] / "bundles" / "armed_spirals"


@pytest.mark.slow
def test_the_whole_study(tmp_path):
    root = tmp_path / "bundle"
    shutil.copytree(SPIRALS / "configs", root / "configs")
    for simulation in (1, 3):
        data = simulate_spirals(simulation, num_clusters=3, samples_per_cluster=60, seed=5)
        data.save(tmp_path / f"sim{simulation}.npz")
    options = json.loads((root / "configs" / "compare.json").read_text())
    options["settings"] = {"simulation": [1, 3]}
    (root / "configs" / "compare.json").write_text(json.dumps(options))
    study = StudyBundle(root, ("paper",), {"dataset_dir": str(tmp_path), "max_epochs": 1})
    comparison = Comparison(study, ["cluster_input", "armed"], tmp_path / "out", num_folds=2)
    files = spiral_study(comparison, num_starts=1)
    assert all(path.is_file() for path in files.values())
    assert {"boundaries", "data_1", "data_3", "report"} < set(files)

    table = pd.read_csv(files["importance"])
    assert set(table["probe"]) == {"X3", "X4"} and set(table["model"]) == set(comparison.models)
    assert table.groupby(["model", "measure", "probe"]).size().eq(3).all()  # these folds, own starts, a shared start
    shared = [
        json.loads(p.read_text())["val_loss"] for p in sorted((tmp_path / "out" / "starts").glob("*/*/*/history.json"))
    ]
    assert len(shared) == 2 * 2 * 2
    text = files["importance_report"].read_text()
    assert "12.6" in text and text.count("\n| armed |") == 4

    summary = pd.read_csv(files["summary"])
    row = summary[(summary["simulation"] == 1) & (summary["model"] == "armed") & (summary["metric"] == "accuracy")]
    assert row["paper"].item() == 0.779 and 0.5 < row["ceiling"].item() < 1
    assert np.isfinite(table["t"]).all()


def test_the_networks_that_are_read_are_those_that_a_search_chose(tmp_path):
    root = tmp_path / "bundle"
    shutil.copytree(SPIRALS / "configs", root / "configs")
    for simulation in (1, 3):
        simulate_spirals(simulation, num_clusters=2, samples_per_cluster=24, seed=5).save(
            tmp_path / f"sim{simulation}.npz"
        )
    options = json.loads((root / "configs" / "compare.json").read_text())
    options["settings"] = {"simulation": [1, 3]}
    (root / "configs" / "compare.json").write_text(json.dumps(options))
    (root / "configs" / "search.json").write_text(json.dumps({"armed": {"lambda_adversary": [0.011, 0.012]}}))
    tiny = {"dataset_dir": str(tmp_path), "max_epochs": 1, "hidden_channels": [4], "adversary_channels": [4]}
    comparison = Comparison(StudyBundle(root, (), {**tiny, "batch_size": 8}), ["armed"], tmp_path / "out", 2)
    comparison = replace(comparison, inner_folds=2)
    files = spiral_study(comparison)
    assert {task.overrides["lambda_adversary"] for task in comparison.tasks} <= {0.011, 0.012}
    table = pd.read_csv(files["importance"])
    assert set(table["model"]) == {"armed"} and np.isfinite(table["t"]).all()
    assert files["boundaries"].is_file()
