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

"""What the folds of a comparison have shown: their results together, ceilings beside them, and the report."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from monai_armed.audit.of_predictions import report_predictions
from monai_armed.compare.fold_task import FEATURE_LEAK, FoldTask
from monai_armed.compare.report import write_report
from monai_armed.compare.study_bundle import BASE_MODEL, StudyBundle
from monai_armed.data.replaced_file import write_csv

__all__ = ["ceilings", "fold_results", "one_test_set", "report_results", "write_pages"]


def fold_results(tasks: Sequence[FoldTask], bundle: StudyBundle) -> pd.DataFrame:
    """Tidy results of all folds that have any."""
    frames = []
    for task in tasks:
        result = task.result(bundle)
        if result is not None:
            frames.append(result.assign(fold=int(task.folder.name.removeprefix("fold_"))))
    if not frames:
        return pd.DataFrame()
    table = pd.concat(frames, ignore_index=True)
    return table.drop_duplicates([c for c in table.columns if c != "value"], ignore_index=True)


def _delong(bundle: StudyBundle, results: pd.DataFrame) -> pd.DataFrame:
    """AUROC with DeLong's interval, a row for each test set of each model, as far as there are any."""
    delong = results[results["metric"].isin(["auroc", "auroc_low", "auroc_high"])]
    keys = [*bundle.options["settings"][0], "partition", "model", "fold"]
    return delong.pivot(index=keys, columns="metric", values="value").reset_index()


def one_test_set(bundle: StudyBundle, results: pd.DataFrame) -> str:
    """A sentence with the intervals of the AUROC, where there is one test set; empty without any AUROC."""
    delong = _delong(bundle, results)
    if "auroc_low" not in delong:
        return ""
    texts = [
        f"{r['model']} ({r['partition']}) {r['auroc']:.3f} [{r['auroc_low']:.3f}, {r['auroc_high']:.3f}]"
        for r in delong.to_dict("records")
    ]
    return f"AUROC of the one test set with DeLong's 95 % interval: {'; '.join(texts)}."


def report_results(
    bundle: StudyBundle,
    results: pd.DataFrame,
    out: Path,
    ceiling: pd.DataFrame | None,
    notes: Sequence[str],
    test_ratio: float | None,
) -> dict[str, Path]:
    """
    Write the report of the metrics that the bundle names.

    Args:
        bundle: whose options say what is shown.
        results: of :py:func:`fold_results`.
        out: folder of the report.
        ceiling: of :py:func:`ceilings`.
        notes: sentences below the tables, after the bundle's own.
        test_ratio: size of a test part as a share of the rest; None where folds share no samples.

    Returns:
        files by name.
    """
    options = bundle.options
    metrics = [*options["metrics"], f"worst_cluster_{options['metrics'][0]}", FEATURE_LEAK]
    shown = results[results["metric"].isin(metrics) & results["value"].notna()]
    order = shown["metric"].map(metrics.index)
    shown = shown.loc[order.sort_values(kind="stable").index]
    text = " ".join(note for note in (options["notes"], *notes) if note)
    files = write_report(shown, out, options["title"], bundle.published, ceiling, options["percent"], text, test_ratio)
    files["delong"] = out / "delong.csv"
    write_csv(_delong(bundle, results), files["delong"])
    return files


def write_pages(bundle: StudyBundle, tasks: Sequence[FoldTask]) -> list[Path]:
    """
    The page of :py:mod:`monai_armed.audit`, ``report.html``, in the folder of each model in each setting that has
    predictions: of its fixed effects where it has any, of the test samples of all folds whose results are of this
    comparison. It is made anew where it would be another one, and removed where there is none to be made.
    """
    options, pages = bundle.options, []
    site, subject = options["cluster_key"], options["group_key"]
    for (folder, model), members in itertools.groupby(tasks, key=lambda task: (task.folder.parent, task.model)):
        files = [task.folder / "predictions.csv" for task in members if task.result(bundle) is not None]
        tables = [pd.read_csv(file, dtype={site: str, subject: str}) for file in files if file.is_file()]
        tables = [table for table in tables if {"model", "partition"} <= set(table)]  # no study's own, as of cells
        table = pd.concat(tables or [pd.DataFrame(columns=["partition", "model"])], ignore_index=True)
        table = table[table["partition"] == "seen"]
        fixed = table[table["model"] == f"{model}, fixed"]
        table, name = (table[table["model"] == model], model) if fixed.empty else (fixed, f"{model}, fixed")
        of = f"{name}, test samples of {len(tables)} folds"
        pages.append(report_predictions(table, site, subject, folder / "report.html", of))
    return [page for page in pages if page is not None]


def ceilings(bundle: StudyBundle, repetitions: Sequence[Mapping[str, Any]]) -> pd.DataFrame | None:
    """Best attainable values, where the evaluate config has an id ``ceiling``: metric to value, on all seen samples."""
    rows = []
    for setting, repetition in itertools.product(bundle.options["settings"], repetitions):
        parser = bundle.config("evaluate", BASE_MODEL, setting, repetition)
        if "ceiling" in parser:
            # as in training: which samples a model has seen is no matter
            training = bundle.config("train", BASE_MODEL, setting, repetition)
            parser.update({name: training[name] for name in ("partitions", "trained") if name in training})
            values = parser.get_parsed_content("ceiling")
            rows += [{**setting, "partition": "seen", "metric": m, "value": float(v)} for m, v in values.items()]
    if not rows:
        return None
    frame = pd.DataFrame(rows)
    return frame.groupby([c for c in frame.columns if c != "value"], sort=False)["value"].mean().reset_index()
