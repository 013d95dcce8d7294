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

"""What the truth of simulated cells allows: the AUROC ceilings that stand beside every model's."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from monai_armed.studies.cells.partitions import cell_partitions

__all__ = ["cell_ceilings"]

_QUANTITIES = {
    "granules": ["granule_brightness"],
    "pseudopodia": ["pseudopodia"],
    "both": ["granule_brightness", "pseudopodia"],
    "batch": ["batch"],
    "both_batch": ["granule_brightness", "pseudopodia", "batch"],
}


def cell_ceilings(root: str | os.PathLike[str], num_splits: int = 20) -> dict[str, float | None]:
    """AUROC of the phenotype that the truth of a simulated study gives, without any image.

    A logistic regression on the named quantities, one row a cell, stands for the best model. For seen batches it is
    fitted on the training cells of :py:func:`monai_armed.studies.cells.cell_partitions` and scored on the test cells,
    the mean over the first ``num_splits`` seeds; for unseen batches it is fitted on all seen cells.

    Args:
        root: the folder given to :py:func:`monai_armed.studies.cells.simulator.simulate_cells`.
        num_splits: number of Monte Carlo splits.

    Returns:
        AUROC by ``<seen or unseen>/<quantity>``: true brightness of the granules (``granules``; at 64 px, where
        pseudopodia hardly show, this is the ceiling), number of ``pseudopodia``, ``both``, for seen batches ``batch``
        alone (its class balance) and ``both_batch``; None where a part has one class only.

    Raises:
        FileNotFoundError: when the folder holds no truth.
    """
    file = Path(root) / "truth" / "cells.csv"
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist; ceilings need a folder that simulate_cells has completed.")
    table = pd.read_csv(file, dtype={"batch": str}).set_index("cell")
    splits = [_split(root, table, seed) for seed in range(num_splits)]
    result: dict[str, float | None] = {}
    for name, columns in _QUANTITIES.items():
        aurocs = [auroc for train, test in splits if (auroc := _auroc(train, test, columns)) is not None]
        result[f"seen/{name}"] = round(float(np.mean(aurocs)), 4) if aurocs else None
    seen, unseen = table[table["seen"] == 1], table[table["seen"] == 0]
    for name, columns in _QUANTITIES.items():
        if "batch" not in columns:
            auroc = _auroc(seen, unseen, columns)
            result[f"unseen/{name}"] = None if auroc is None else round(auroc, 4)
    return result


def _split(root: str | os.PathLike[str], table: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a partition of a small draw may lack a class
        parts = cell_partitions(root, seed=seed)
    train, test = (table.loc[sorted({item["cell"] for item in parts[name]})] for name in ("train", "test"))
    return train, test


def _auroc(train: pd.DataFrame, test: pd.DataFrame, columns: Sequence[str]) -> float | None:
    if train["label"].nunique() < 2 or test["label"].nunique() < 2:
        return None
    encoder = make_column_transformer(
        (StandardScaler(), [column for column in columns if column != "batch"]),
        (OneHotEncoder(handle_unknown="ignore"), [column for column in columns if column == "batch"]),
    )
    model = make_pipeline(encoder, LogisticRegression()).fit(train, train["label"])
    return float(roc_auc_score(test["label"], model.decision_function(test)))
