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
"""Metrics of each fold from the saved predictions, tests over folds, and the tables to be read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import r2_score, roc_auc_score, root_mean_squared_error
from tables import Table

from monai_armed.metrics.comparison import paired_t_tests, summarize_folds

__all__ = ["corrected_tests", "fold_results", "write_results"]


def fold_results(tables: Sequence[Table], out: Path) -> pd.DataFrame:
    """Tidy frame of all saved folds: ``table``, ``partition``, ``metric``, ``model``, ``fold``, ``value``."""
    rows = []
    for table in tables:
        for path in sorted((out / "folds" / table.name).glob("*/*.json")):
            model, _, fold = path.stem.rpartition("-")
            saved = json.loads(path.read_text(encoding="utf-8"))
            key = {"table": table.name, "partition": path.parent.name, "fold": int(fold)}
            y = table.y[saved["rows"]]
            for kind, score in saved["scores"].items():
                name = f"{model}, {kind}" if kind else model
                values = _metrics(table.binary, y, np.array(score))
                values["CPU seconds"] = saved["seconds"]
                rows += [{**key, "model": name, "metric": metric, "value": v} for metric, v in values.items()]
    return pd.DataFrame(rows)


def _metrics(binary: bool, y: np.ndarray, score: np.ndarray) -> dict[str, float]:
    if binary:
        return {"AUROC": float(roc_auc_score(y, score)) if len(np.unique(y)) == 2 else float("nan")}
    return {"RMSE": float(root_mean_squared_error(y, score)), "R2": float(r2_score(y, score))}


def corrected_tests(results: pd.DataFrame, model: str = "ARMED", num_folds: int = 10) -> pd.DataFrame:
    """
    Paired t-tests of one model against each other over folds, corrected for the training rows that folds share (Nadeau
    and Bengio 2003): the variance of the mean difference is (1/k + n_test/n_train) s^2 in place of s^2 / k.
    """
    tests = paired_t_tests(results[results["metric"] != "CPU seconds"])
    ours = tests[(tests["model_a"] == model) | (tests["model_b"] == model)].copy()
    flip = np.where(ours["model_a"] == model, 1, -1)
    ours["against"] = np.where(ours["model_a"] == model, ours["model_b"], ours["model_a"])
    k = ours["num_folds"]
    ours["difference"] = flip * ours["difference"]
    ours["t"] = flip * ours["t"] / np.sqrt(1 + k / (num_folds - 1))
    ours["p"] = 2 * stats.t.sf(ours["t"].abs(), k - 1)
    return ours[["table", "partition", "metric", "against", "num_folds", "difference", "t", "p"]]


def write_results(tables: Sequence[Table], out: Path, models: Sequence[str]) -> None:
    """Write ``results.csv``, ``tests.csv`` and ``results.md`` from what is saved, and print the latter.

    Args:
        tables: the tables.
        out: folder of the run.
        models: names of the models in the order of the rows.
    """
    results = fold_results(tables, out)
    results.to_csv(out / "results.csv", index=False)
    tests = corrected_tests(results)
    tests.to_csv(out / "tests.csv", index=False)
    rows = [name for model in models for name in (model, f"{model}, fixed part")]
    text = "\n".join(_page(table, results, tests, rows) for table in tables)
    (out / "results.md").write_text(text, encoding="utf-8")
    print(text)


def _page(table: Table, results: pd.DataFrame, tests: pd.DataFrame, rows: list[str]) -> str:
    """Markdown table of a data set: one row a model, one column a partition and metric."""
    own = summarize_folds(results[results["table"] == table.name]).drop(columns="table")
    share = f", {table.y.mean():.2f} of class 1" if table.binary else ""
    lines = [f"**{table.name}**: {table.meaning}. {len(table.y)} rows, {table.x.shape[1]} features, "]
    lines[0] += f"{table.num_clusters} clusters{share}."
    own["column"] = own["partition"] + ": " + own["metric"]
    own["text"] = [_cell(row, table.name, tests) for row in own.itertuples()]
    seconds = own[own["metric"] == "CPU seconds"].groupby("model")["mean"].mean()
    scores = own[own["metric"] != "CPU seconds"].sort_values(["partition", "metric"])
    wide = scores.pivot(index="model", columns="column", values="text").fillna("")
    wide = wide.reindex(index=[name for name in rows if name in wide.index], columns=scores["column"].unique())
    head = ["model", *wide.columns, "CPU s a fold"]
    lines += ["", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for model, row in wide.iterrows():
        lines.append(f"| {model} | " + " | ".join(row) + f" | {seconds[model]:.1f} |")
    return "\n".join([*lines, ""])


def _cell(row, table: str, tests: pd.DataFrame) -> str:
    """Mean over folds, with a star where ARMED differs from it at p < 0.05."""
    test = tests[
        (tests["table"] == table)
        & (tests["partition"] == row.partition)
        & (tests["metric"] == row.metric)
        & (tests["against"] == row.model)
    ]
    star = "*" if len(test) and test["p"].iloc[0] < 0.05 else ""
    return f"{row.mean:.2f}{star}" if row.metric == "RMSE" else f"{row.mean:.3f}{star}"
