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

"""Predictions of a trained network on its partitions, and the metrics of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from ignite.engine import Engine, Events
from ignite.handlers.tqdm_logger import ProgressBar
from monai.data import DataLoader
from monai.engines import PrepareBatch, SupervisedEvaluator

from monai_armed.audit.of_predictions import report_predictions
from monai_armed.bundle.new_clusters import calibrate_table
from monai_armed.data.replaced_file import write_csv
from monai_armed.metrics.calibration import Calibration
from monai_armed.metrics.calibration_file import write_calibrations
from monai_armed.metrics.leak import cluster_leak
from monai_armed.metrics.youden import youden_metrics
from monai_armed.networks.training_distance import distance_columns

__all__ = ["EVALUATED", "collect_predictions", "evaluate_partitions", "partition_metrics", "with_samples"]

GENERAL_ELECTRIC = r"(?i)ge\b|general electric"  # as people write it, and as DICOM headers do: "GE MEDICAL SYSTEMS"
EVALUATED = "evaluated_predictions.csv"
"""What evaluation writes; ``predictions.csv`` is inference's, so that both may have one folder."""
UNSEEN, CLUSTER = "unseen", "site"
SITES = (CLUSTER, "cluster")
COLUMNS = ("subject", "session", "site", "cluster", "manufacturer", "diagnosis")


def collect_predictions(
    evaluator: SupervisedEvaluator, loader: DataLoader, prepare_batch: PrepareBatch, name: str = ""
) -> pd.DataFrame:
    """
    Run an evaluator over some samples with a way of preparing its batches, and tabulate what it predicts.

    Args:
        evaluator: has ``decollate=False`` and a network with one logit.
        loader: batches of the samples.
        prepare_batch: says what the network is called with.
        name: shown beside the progress bar; there is none without a name.

    Returns:
        a row for each sample: ``label``, ``score`` (the logit), and those of the columns subject, session, site,
        cluster, manufacturer and diagnosis that the data have, and whether it is unlike the training data, where the
        network knows it. Without samples, such as where no site is unseen, it is
        empty.
    """
    if not len(loader):
        return pd.DataFrame(columns=["label", "score"])
    rows: list[pd.DataFrame] = []

    def keep(engine: Engine) -> None:
        batch, output = engine.state.batch, engine.state.output
        assert isinstance(batch, Mapping) and isinstance(output, Mapping)
        table = {key: _column(batch[key]) for key in COLUMNS if key in batch}
        table["label"] = output["label"]["label"].reshape(-1).long().tolist()
        table["score"] = output["pred"].float().reshape(-1).tolist()
        table |= distance_columns(evaluator.network, output["image"])
        rows.append(pd.DataFrame(table))

    usual = evaluator.prepare_batch, evaluator.data_loader, evaluator.state.epoch_length
    handler = evaluator.add_event_handler(Events.ITERATION_COMPLETED, keep)
    bar = ProgressBar(desc=name, disable=not name)
    bar.attach(evaluator)
    evaluator.prepare_batch, evaluator.data_loader, evaluator.state.epoch_length = prepare_batch, loader, len(loader)
    try:
        with torch.no_grad():
            evaluator.run()
    finally:
        evaluator.prepare_batch, evaluator.data_loader, evaluator.state.epoch_length = usual
        handler.remove()
        bar.close()
    return pd.concat(rows, ignore_index=True)


def _column(values: torch.Tensor | Sequence) -> list:
    return values.reshape(-1).tolist() if isinstance(values, torch.Tensor) else list(values)


def partition_metrics(table: pd.DataFrame) -> dict[str, float]:
    """
    Metrics of one prediction on one partition.

    Args:
        table: ``label`` and ``score``, and for the leak ``manufacturer``, empty where it is not known.

    Returns:
        number of samples, AUROC, balanced accuracy, sensitivity and specificity at the Youden point, and the leak, how
        well the score tells General Electric's scanners from the others among controls; NaN where the makers are not
        known.
    """
    metrics: dict[str, float] = {"samples": len(table)}
    if table["label"].nunique() == 2:
        metrics.update(youden_metrics(table["label"], table["score"]))
        del metrics["threshold"]
    metrics["leak"] = float("nan")
    if "manufacturer" in table:
        controls = table[(table["label"] == 0) & (table["manufacturer"] != "")]
        metrics["leak"] = cluster_leak(controls["score"], controls["manufacturer"].str.match(GENERAL_ELECTRIC))
    return metrics


def evaluate_partitions(
    evaluator: SupervisedEvaluator,
    loaders: Mapping[str, DataLoader],
    predictions: Mapping[str, PrepareBatch],
    output_dir: str | Path,
    audit: Callable[[Engine], None] | None = None,
    ceiling: Mapping[str, float] | None = None,
    ckpt_path: str | Path | None = None,
) -> pd.DataFrame:
    """
    Evaluate every kind of prediction on every partition that has samples; prints the metrics and writes
    ``evaluated_predictions.csv``, ``metrics.csv`` and ``report.html``, the page of :py:mod:`monai_armed.audit`. On the
    partition ``"unseen"`` predictions are calibrated for new clusters,
    see :py:func:`monai_armed.bundle.new_clusters.calibrate_table`; the calibrations are written as
    ``calibration.json``, which inference uses where it lies beside the model.

    Args:
        evaluator: has ``decollate=False`` and a network with one logit.
        loaders: batches by name of the partition, such as seen and unseen.
        predictions: by name of the prediction, such as mixed and fixed.
        output_dir: folder to write to.
        audit: called at the end with the evaluator, such as a :py:class:`monai_armed.handlers.ClusterAudit`.
        ceiling: the best attainable metrics on the first partition, where they are known; printed.
        ckpt_path: the model's file, which ``calibration.json`` is for; without it none is written.

    Returns:
        the metrics, a row for each partition and prediction.

    Raises:
        ValueError: when no partition has a sample.
    """
    tables, metrics = [], []
    calibrations: dict[str, Calibration] = {}
    for partition, loader in loaders.items():
        for prediction, prepare_batch in predictions.items():
            table = collect_predictions(evaluator, loader, prepare_batch, f"{partition} {prediction}")
            if table.empty:
                print(f"there is no sample that is {partition}: left out.")
                break
            key = {"partition": partition, "prediction": prediction}
            found = partition_metrics(table)
            if partition == UNSEEN and CLUSTER in table:
                table, of_sets, calibration = calibrate_table(table, CLUSTER)
                found |= of_sets
                calibrations |= {} if calibration is None else {prediction: calibration}
            tables.append(table.assign(**key))
            metrics.append({**key, **found})
    if not tables:
        raise ValueError(
            f"none of the data can be evaluated: they hold no sample that is {' or '.join(loaders)} and that the model "
            "was not trained on; give the data of its training, or others."
        )
    folder = Path(output_dir)
    write_csv(pd.concat(tables, ignore_index=True), folder / EVALUATED)
    frame = pd.DataFrame(metrics)
    write_csv(frame, folder / "metrics.csv")
    print(frame.to_string(index=False, float_format="%.3f"))
    print(f"written to {folder / EVALUATED} and {folder / 'metrics.csv'}")
    _write_page(tables, metrics, folder)
    if calibrations and ckpt_path is not None:
        path = write_calibrations(calibrations, ckpt_path, folder)
        print(f"calibrated for new clusters: {path}; inference uses it where it lies beside {Path(ckpt_path).name}")
    if ceiling:
        best = ", ".join(f"{name} {value:.3f}" for name, value in ceiling.items())
        print(f"best attainable on {next(iter(loaders))}: {best}")
    if audit is not None:
        audit(evaluator)
    return frame


def _write_page(tables: Sequence[pd.DataFrame], metrics: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """The audit's page of the first partition: of the fixed effects where there are any, which must not tell it."""
    kinds = [row["prediction"] for row in metrics if row["partition"] == metrics[0]["partition"]]
    k = kinds.index("fixed") if "fixed" in kinds else 0
    site = next((name for name in SITES if name in tables[k]), CLUSTER)
    of = f"{kinds[k]} predictions of {metrics[0]['partition']} samples"
    if page := report_predictions(tables[k], site, "subject", folder / "report.html", of):
        print(f"whether the {of} tell the {site}: {page}")


def with_samples(loaders: Mapping[str, DataLoader]) -> dict[str, DataLoader]:
    """Of loaders by partition those that have a sample, such as without that of unseen clusters where there is none."""
    return {name: loader for name, loader in loaders.items() if len(loader)}
