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

"""Folds as runs of MLflow, in a local store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from monai_armed.compare.fold_tracking import FoldTracker

mlflow = pytest.importorskip("mlflow", reason="runs of MLflow need mlflow: pip install mlflow")


@dataclass
class Bundle:
    overrides: dict[str, Any]


@dataclass
class Task:
    """What the tracker asks a :py:class:`monai_armed.compare.fold_task.FoldTask` for."""

    folder: Path
    value: float | None
    model: str = "armed"
    seed: int = 3

    setting, overrides = {"simulation": 2}, {"train#rate": 0.1}

    def result(self, _bundle):
        row = {"partition": "seen", "model": "armed, fixed", "metric": "auroc", "value": self.value}
        return None if self.value is None else pd.DataFrame([row])

    def fingerprint(self, _bundle, *_kinds):
        return f"of {self.value}"


def test_a_run_a_fold(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    done, failed, missing = (Task(tmp_path / "armed" / f"fold_0{k}", v) for k, v in enumerate([0.75, None, None]))
    done.folder.mkdir(parents=True)
    (done.folder / "history.json").write_text('{"val_loss": [0.5, 0.25]}')
    for _ in range(2):  # a comparison that goes on
        tracker = FoldTracker(tmp_path, "spirals")
        tracker.write(Bundle({"lambda": 2}), done)
        tracker.write(Bundle({}), failed, "out of memory")
        tracker.write(Bundle({}), missing)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlruns.db")
    (experiment,) = (e for e in client.search_experiments() if e.name == "spirals")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"armed/fold_00", "armed/fold_01"} and len(client.search_runs([experiment.experiment_id])) == 2
    good, bad = runs["armed/fold_00"], runs["armed/fold_01"]
    assert good.data.metrics["seen/armed_ fixed/auroc"] == 0.75 and good.info.status == "FINISHED"
    assert good.data.params["simulation"] == "2" and good.data.params["train_rate"] == "0.1"
    assert good.data.params["lambda"] == "2" and bad.info.status == "FAILED"
    history = client.get_metric_history(good.info.run_id, "val_loss")
    assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 0.25)]
    assert bad.data.tags["error"] == "out of memory"

    done.value = 0.5  # another result: another run
    FoldTracker(tmp_path, "spirals").write(Bundle({}), done)
    assert len(client.search_runs([experiment.experiment_id])) == 3
