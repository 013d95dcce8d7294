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

"""Scoring of a trained fold through the bundle's evaluate config."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import pandas as pd
from monai.bundle import ConfigParser

from monai_armed.bundle.evaluate import collect_predictions
from monai_armed.compare.fold_task import FEATURE_LEAK, FoldTask, fold_config
from monai_armed.compare.study_bundle import StudyBundle
from monai_armed.data.replaced_file import write_csv
from monai_armed.metrics.comparison import delong_interval
from monai_armed.metrics.strength import layer_leaks

__all__ = ["score_fold"]


def score_fold(bundle: StudyBundle, task: FoldTask) -> None:
    """
    Score the saved weights of a fold on its test and the unseen samples, and save the metrics.

    They are those of the ``predictions`` that the evaluate config has, which are saved, too, and what its own
    ``scores`` gives, and, where the task asks for it, the leak of the last of the layers that its ``audit`` looks at.
    See :py:mod:`monai_armed.compare.study_bundle`.
    """
    parser = fold_config(bundle, "evaluate", task)
    (task.folder / "predictions.csv").unlink(missing_ok=True)  # of another evaluation, which may have had others
    rows = _prediction_scores(bundle, parser, task) if parser.get("predictions") else []
    if parser.get("scores"):
        rows += _own_scores(parser, task)
    if task.measures_leak:
        leaks = layer_leaks(*parser.get_parsed_content("audit").features())
        key = {**task.setting, "partition": "seen", "model": task.model, "metric": FEATURE_LEAK}
        rows.append({**key, "value": list(leaks.values())[-1]})
    (task.folder / "error.txt").unlink(missing_ok=True)
    task.save_result(bundle, rows)


def _own_scores(parser: ConfigParser, task: FoldTask) -> list[dict[str, Any]]:
    """The figures that the bundle's own ``scores`` gives."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        scores = parser.get_parsed_content("scores")
    first = next((score["prediction"] for score in scores if "prediction" in score), "")
    rows = []
    for score in scores:
        model = score.get("model", task.model)
        if score.get("prediction", first) != first:
            model = f"{task.model}, {score['prediction']}"
        row = {"partition": score["partition"], "model": model, "metric": score["metric"]}
        rows.append({**task.setting, **row, "value": float(score["value"])})
    return rows


def _prediction_scores(bundle: StudyBundle, parser: ConfigParser, task: FoldTask) -> list[dict[str, Any]]:
    """Metrics of the logits, by :py:meth:`StudyBundle.measure`; the predictions are saved."""
    loaders = {"seen": "validate#dataloader", "unseen": "unseen_dataloader"}
    predictions = parser.get_parsed_content("predictions")
    tables, rows = [], []
    evaluator = parser.get_parsed_content("validate#evaluator")
    for partition, name in loaders.items():
        if name not in parser:
            continue
        loader = parser.get_parsed_content(name)
        for k, (kind, prepare_batch) in enumerate(predictions.items()):
            table = collect_predictions(evaluator, loader, prepare_batch)
            if table.empty:
                break
            row_name = task.model if k == 0 else f"{task.model}, {kind}"
            tables.append(table.assign(model=row_name, partition=partition))
            key = {**task.setting, "partition": partition, "model": row_name}
            rows += [{**key, "metric": m, "value": v} for m, v in _metrics(bundle, table).items()]
    write_csv(pd.concat(tables, ignore_index=True), task.folder / "predictions.csv")
    return rows


def _metrics(bundle: StudyBundle, table: pd.DataFrame) -> dict[str, float]:
    """Metrics over all samples, DeLong's interval, and the worst cluster's metrics."""
    table = table[table["label"] >= 0]  # others are not known
    label, score = table["label"].to_numpy(), table["score"].to_numpy()
    metrics = bundle.measure(label, score)
    if min(label.sum(), (1 - label).sum()) > 1:
        _, metrics["auroc_low"], metrics["auroc_high"] = delong_interval(label, score)
    cluster = bundle.options["cluster_key"]
    if cluster in table:
        groups = [group for _, group in table.groupby(cluster)]
        each = pd.DataFrame([bundle.measure(g["label"].to_numpy(), g["score"].to_numpy()) for g in groups])
        metrics.update({f"worst_cluster_{name}": float(v) for name, v in each.min(skipna=True).items()})
    return metrics
