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

"""Figures of the AD study beside the predictions' own: leak, site alone and ceilings (Table 4)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_armed.bundle.evaluate import partition_metrics
from monai_armed.metrics.youden import youden_metrics
from monai_armed.studies.ad_mri.ceilings import AREAS, ceiling_scores
from monai_armed.studies.ad_mri.truth import ad_mri_truth

__all__ = ["score_ad_mri"]

Rows = list[dict[str, Any]]


def score_ad_mri(
    partitions: Mapping[str, Sequence[Mapping[str, Any]]],
    predictions: Iterable[str],
    dataset_dir: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    saliency: Rows | None = None,
) -> Rows:
    """
    Figures for the comparison of models, from one division into training and test: the leak of each prediction among
    controls of unseen sites, where the scanners' makers are known; what the site alone would score on seen sites
    (its share of AD images in training); and of a simulated study the ceilings, a logistic regression on the regions'
    true areas in the slice, with or without the site.

    Args:
        partitions: data lists ``"train"``, ``"test"`` and ``"unseen"``, see
            :py:func:`monai_armed.studies.ad_mri.ad_mri_partitions`.
        predictions: names of the predictions, in the order of ``predictions.csv``.
        dataset_dir: the data, with the truth if they are simulated.
        output_dir: folder with ``predictions.csv``, as the comparison writes it.
        saliency: further figures, those of :py:func:`monai_armed.studies.ad_mri.saliency.saliency_scores`.

    Returns:
        dicts of ``partition``, ``metric``, ``value``, and ``prediction`` or, for what no network predicts, ``model``.
    """
    rows = _own_scores(partitions, list(predictions), dataset_dir, output_dir)
    return [*rows, *(saliency or [])]


def _own_scores(
    partitions: Mapping[str, Sequence[Mapping[str, Any]]],
    predictions: Sequence[str],
    dataset_dir: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
) -> Rows:
    rows = _leaks(pd.read_csv(Path(output_dir) / "predictions.csv", dtype={"site": str}), predictions)
    names = {"seen": "test", "unseen": "unseen"}
    lists = {name: pd.DataFrame(list(partitions[name])) for name in ("train", "test")}
    rows += _metrics("seen", "site alone", lists["train"], lists["test"], ["site"])
    truth = {name: ad_mri_truth(partitions[name], dataset_dir) for name in ("train", *names.values())}
    train = truth["train"]
    if train is None:
        return rows
    for partition, name in names.items():
        test = truth[name]
        if test is not None and len(test):
            rows += _metrics(partition, "ceiling: region areas", train, test, AREAS)
    if truth["test"] is not None:
        rows += _metrics("seen", "ceiling: region areas and site", train, truth["test"], [*AREAS, "site"])
    return rows


def _leaks(table: pd.DataFrame, predictions: Sequence[str]) -> Rows:
    rows = []
    for prediction, (_, part) in zip(predictions, table.groupby("model", sort=False), strict=True):
        leak = partition_metrics(part[part["partition"] == "unseen"])["leak"]
        if np.isfinite(leak):
            rows.append({"partition": "unseen", "prediction": prediction, "metric": "leak", "value": leak})
    return rows


def _metrics(partition: str, model: str, train: pd.DataFrame, test: pd.DataFrame, columns: Sequence[str]) -> Rows:
    """The metrics of Table 4 of a model that knows some columns; none where it is not two classes."""
    if train["label"].nunique() < 2 or test["label"].nunique() < 2:
        return []
    found = youden_metrics(test["label"], ceiling_scores(train, test, columns))
    return [
        {"partition": partition, "model": model, "metric": metric, "value": value}
        for metric, value in found.items()
        if metric != "threshold"
    ]
