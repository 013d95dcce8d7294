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

"""Hyperparameters that nested cross-validation within each fold's training samples chooses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_armed.compare.fold_task import FEATURE_LEAK, FoldTask
from monai_armed.compare.study_bundle import StudyBundle
from monai_armed.data.replaced_file import write_csv, write_text
from monai_armed.metrics.strength import choose_strength

__all__ = ["check_search", "choose_candidate", "inner_tasks", "write_search"]

RULES = {
    "score": "the candidate with the best {metric} in validation",
    "leak": "of the candidates within one standard error of the best {metric} in validation the one whose last "
    "features tell the cluster least (leak: AUROC of a linear discriminant within each class, 0.5: not at all)",
}


def check_search(bundle: StudyBundle, models: Sequence[str]) -> None:
    """
    Raises:
        ValueError: when the bundle's choice is by the leak, and a model has no ``audit``, from which the leak is found.
    """
    for model in models if bundle.options["choose_by"] == "leak" else ():
        if not bundle.config("evaluate", model).get("audit"):
            raise ValueError(
                f"{bundle.root} chooses by the leak, and the evaluation of {model} has no id 'audit', a ClusterAudit "
                "that says from which samples' features the cluster is told: add it, or choose_by 'score'."
            )


def inner_tasks(bundle: StudyBundle, task: FoldTask, parts: Sequence[dict[str, np.ndarray]]) -> list[list[FoldTask]]:
    """
    Args:
        bundle: whose ``search.json`` has the candidates.
        task: a fold.
        parts: of its training and validation samples, as many as there are inner folds.

    Returns:
        for each candidate a task for each inner fold.
    """
    return [
        [
            replace(
                task,
                folder=task.folder / "search" / f"{c}_{i}",
                parts=part,
                overrides={**task.overrides, **candidate},
            )
            for i, part in enumerate(parts)
        ]
        for c, candidate in enumerate(bundle.search(task.model))
    ]


def choose_candidate(bundle: StudyBundle, task: FoldTask, inner: Sequence[Sequence[FoldTask]]) -> FoldTask:
    """
    The task with the hyperparameters that the inner folds speak for, by the bundle's ``choose_by``:

    - ``"score"``: those with the best mean of the first metric over the inner folds' test samples;
    - ``"leak"``: :py:func:`monai_armed.metrics.strength.choose_strength`: of those whose score is within one standard
      error of the best that with the lowest leak, both means over inner folds. The standard error is that of the mean
      over inner folds; the leak how well a linear discriminant tells two clusters apart, within each class, from the
      last features of the inner test samples.

    Both take no sample of the outer test part. A candidate with a fold that failed is not taken; if all have failed,
    the configured values are kept. What was chosen, and from which figures, is written to the fold's ``search.json``.
    """
    if not inner:
        return task
    rule, metric = bundle.options["choose_by"], bundle.options["metrics"][0]
    results = [[one.result(bundle) for one in of_candidate] for of_candidate in inner]
    scores = _figures(results, task.model, metric)
    columns = {"scores": scores.mean(axis=1), "standard_errors": scores.std(axis=1, ddof=1) / np.sqrt(scores.shape[1])}
    if rule == "leak":
        columns["leaks"] = _figures(results, task.model, FEATURE_LEAK).mean(axis=1)
    known, chosen = np.isfinite(list(columns.values())).all(axis=0), None
    if known.any():
        leaks = columns.get("leaks", np.zeros(len(inner)))
        errors = columns["standard_errors"] if rule == "leak" else np.zeros(len(inner))
        chosen = choose_strength(np.where(known, columns["scores"], np.nan), errors, leaks)
    candidates = bundle.search(task.model)
    record = {"rule": rule, "metric": metric, "candidates": candidates, "chosen": chosen}
    figures = {name: [float(v) if np.isfinite(v) else None for v in values] for name, values in columns.items()}
    write_text(json.dumps({**record, **figures}, indent=4), task.folder / "search.json")
    return task if chosen is None else replace(task, overrides={**task.overrides, **candidates[chosen]})


def _figures(results: Sequence[Sequence[pd.DataFrame | None]], model: str, metric: str) -> np.ndarray:
    """A metric of the model's own prediction, (candidates, inner folds); NaN where a fold failed."""
    found = np.full((len(results), len(results[0])), np.nan)
    for place in np.ndindex(found.shape):
        table = results[place[0]][place[1]]
        if table is not None:
            own = (table["model"] == model) & (table["partition"] == "seen") & (table["metric"] == metric)
            found[place] = table[own]["value"].iloc[0]
    return found


def write_search(bundle: StudyBundle, tasks: Sequence[FoldTask], report: Path) -> dict[str, Path]:
    """
    What was chosen in each fold, and from which figures: ``search.csv``, a row for each candidate in each fold, and a
    section of the report, with means over folds and how often each candidate was chosen.

    Args:
        bundle: the bundle.
        tasks: all folds.
        report: file of the report, which the section is added to.

    Returns:
        ``"search"``: the table's file, where any model has candidates.
    """
    rows: list[dict[str, Any]] = []
    for task in tasks:
        path = task.folder / "search.json"
        record = json.loads(path.read_text(encoding="utf-8")) if bundle.search(task.model) else {"candidates": []}
        for c, candidate in enumerate(record["candidates"]):
            key = {**task.setting, "model": task.model, "fold": int(task.folder.name.removeprefix("fold_"))}
            values = ", ".join(f"{name} {value}" for name, value in candidate.items())
            figures = {name[:-1]: record[name][c] for name in ("scores", "standard_errors", "leaks") if name in record}
            rows.append({**key, "candidate": values, **figures, "chosen": record["chosen"] == c})
    lines = [
        "",
        "## What the search chose",
        "",
        "No model has candidates in `configs/search.json`: nothing was chosen.",
    ]
    files = {"search": report.with_name("search.csv")} if rows else {}
    if rows:
        table = pd.DataFrame(rows)
        write_csv(table, files["search"])
        lines[3:] = _section(bundle, table, sorted({task.model for task in tasks} - set(table["model"])))
    write_text(report.read_text(encoding="utf-8") + "\n".join(lines) + "\n", report)
    return files


def _section(bundle: StudyBundle, table: pd.DataFrame, without: Sequence[str]) -> list[str]:
    rule, metric = bundle.options["choose_by"], bundle.options["metrics"][0]
    lines = [f"Chosen in each fold: {RULES[rule].format(metric=metric)}; figures are means over folds."]
    numbers = table.groupby("model", sort=False)["candidate"].nunique()
    if without or numbers.nunique() > 1:
        said = [f"{model} {number}" for model, number in [*numbers.items(), *((model, 1) for model in without)]]
        lines[-1] += f" Models had unequal numbers of candidates: {', '.join(said)}."
    figures = [name for name in ("score", "standard_error", "leak") if name in table]
    settings = [name for name in bundle.options["settings"][0] if name in table]
    lines += ["", f"| {' | '.join([*settings, 'model', 'candidate', *figures, 'chosen'])} |"]
    lines.append("|---" * (len(settings) + len(figures) + 3) + "|")
    for key, part in table.groupby([*settings, "model", "candidate"], sort=False):
        means = [f"{value:.3f}" for value in part[figures].astype(float).mean()]
        lines.append(f"| {' | '.join([*map(str, key), *means, f'{part.chosen.sum()} of {len(part)}'])} |")
    return lines
