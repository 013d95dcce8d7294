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

"""The folds of a comparison as runs of MLflow."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
from monai.utils import optional_import, path_to_sqlite_uri, path_to_uri

from monai_armed.compare.fold_task import FoldTask
from monai_armed.compare.study_bundle import StudyBundle

mlflow, has_mlflow = optional_import("mlflow")

__all__ = ["FoldTracker"]

FOLD = "monai_armed.fold"  # tag of a run: fold and what its result depends on


class FoldTracker:
    """
    Writes a run for each fold of a comparison: its setting, hyperparameters and metrics, the validation loss of each
    epoch where it is kept, and the error of one that failed. A result that is there already is not written again.

    Args:
        folder: of the comparison. The runs are in its ``mlruns.db``, or where ``MLFLOW_TRACKING_URI`` says.
        experiment: name of the experiment.

    Raises:
        ImportError: when MLflow is not installed.
    """

    def __init__(self, folder: Path, experiment: str) -> None:
        if not has_mlflow:
            raise ImportError("--tracking mlflow needs the package mlflow: pip install mlflow.")
        local = None if os.environ.get("MLFLOW_TRACKING_URI") else path_to_sqlite_uri(folder / "mlruns.db")
        self.folder, self.client = folder, mlflow.MlflowClient(tracking_uri=local)
        found = self.client.get_experiment_by_name(experiment)
        place = None if local is None else path_to_uri(folder / "mlruns")
        self.experiment = found.experiment_id if found else self.client.create_experiment(experiment, place)
        runs = self.client.search_runs([self.experiment], max_results=10000)
        self.known = {run.data.tags.get(FOLD) for run in runs}

    def write(self, bundle: StudyBundle, task: FoldTask, error: str = "") -> None:
        """Write a fold's run, if it has a result or an error that is not written yet."""
        result = task.result(bundle)
        name = task.folder.relative_to(self.folder).as_posix()
        tag = f"{name} {error or task.fingerprint(bundle, 'train', 'evaluate')}"
        if tag in self.known or (result is None and not error):
            return
        self.known.add(tag)
        run = self.client.create_run(self.experiment, run_name=name, tags={FOLD: tag}).info.run_id
        values = {"model": task.model, "seed": task.seed, **task.setting, **bundle.overrides, **task.overrides}
        metrics = [*_metrics(result), *_history(task.folder / "history.json")] if not error else []
        for start in range(0, len(metrics), 1000):  # as many as MLflow takes at once
            self.client.log_batch(run, metrics[start : start + 1000])
        self.client.log_batch(run, params=[mlflow.entities.Param(_key(k), str(v)[:500]) for k, v in values.items()])
        if error:
            self.client.set_tag(run, "error", error)
        self.client.set_terminated(run, "FAILED" if error else "FINISHED")


def _metrics(result: pd.DataFrame | None) -> list[Any]:
    rows = [] if result is None else result.to_dict("records")
    named = {_key(f"{row['partition']}/{row['model']}/{row['metric']}"): float(row["value"]) for row in rows}
    return [mlflow.entities.Metric(name, value, 0, 0) for name, value in named.items()]


def _history(path: Path) -> list[Any]:
    losses = json.loads(path.read_text(encoding="utf-8"))["val_loss"] if path.is_file() else []
    return [mlflow.entities.Metric("val_loss", loss, 0, k + 1) for k, loss in enumerate(losses)]


def _key(text: str) -> str:
    """A name that MLflow takes: letters, digits and some signs."""
    return "".join(sign if sign.isalnum() or sign in "_-. /" else "_" for sign in text)
