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

"""What the truth of a simulated AD study allows: the AUROC ceilings that stand beside every model's."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from monai_armed.data.splits import split_by_subject
from monai_armed.studies.ad_mri.truth import read_truth

__all__ = ["AREAS", "ad_mri_ceilings", "ceiling_scores"]

AREAS = ["hippocampus_amygdala_area", "log_ventricle_area"]
"""Columns of the truth with the regions' areas in the slice: what a network can see of the disease."""
_QUANTITIES = {
    "h_v": ["h", "log_v"],
    "roi_volumes": ["hippocampus_amygdala_volume", "log_ventricle_volume"],
    "roi_areas": AREAS,
}


def ad_mri_ceilings(root: str | os.PathLike[str], num_splits: int = 40) -> dict[str, float | None]:
    """AUROC of AD against CN that the truth of a simulated study gives, without any image.

    A logistic regression on the named quantities (ventricles on the log scale) stands for the best model. For seen
    sites it is fitted on the training partition of :func:`monai_armed.data.split_by_subject` and scored on the test
    partition, the mean over ``num_splits`` seeds; for unseen sites it is fitted on all seen images. The site alone
    scores an image with its site's share of AD images, estimated on training (``site``), or in all seen images
    (``site_all_images``); an unseen site has none.

    Args:
        root: the folder given to :func:`monai_armed.studies.ad_mri.simulator.simulate_ad_mri`.
        num_splits: number of Monte Carlo splits; the site's AUROC has an s.d. of about 0.1 between splits.

    Returns:
        AUROC by ``<role>/<quantity>``: the volumes drawn (``h_v``), the regions' volumes after the warp
        (``roi_volumes``), their areas in the slice (``roi_areas``), ``site`` and ``roi_areas_site``; None where the
        draw is too small for a split.

    Raises:
        FileNotFoundError: when the folder holds no truth.
    """
    table = read_truth(root)
    seen, unseen = table[table["site_role"] == "seen"], table[table["site_role"] == "unseen"]
    splits = _splits(seen, num_splits)
    result = {f"seen/{name}": _mean_auroc(splits, columns) for name, columns in _QUANTITIES.items()}
    result["seen/site_all_images"] = _auroc(seen, seen, ["site"])
    result["seen/site"] = _mean_auroc(splits, ["site"])
    result["seen/roi_areas_site"] = _mean_auroc(splits, [*AREAS, "site"])
    result |= {f"unseen/{name}": _auroc(seen, unseen, columns) for name, columns in _QUANTITIES.items()}
    return {name: None if auroc is None else round(auroc, 4) for name, auroc in result.items()}


def _splits(table: pd.DataFrame, num_splits: int) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """Training and test partition of each Monte Carlo split."""
    records = [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
    splits = []
    for seed in range(num_splits):
        try:
            train, _, test = split_by_subject(records, seed=seed)
        except ValueError:  # a partition of a small draw may lack a class
            continue
        splits.append((pd.DataFrame(train), pd.DataFrame(test)))
    return splits


def _mean_auroc(splits: Sequence[tuple[pd.DataFrame, pd.DataFrame]], columns: Sequence[str]) -> float | None:
    aurocs = [auroc for train, test in splits if (auroc := _auroc(train, test, columns)) is not None]
    return float(np.mean(aurocs)) if aurocs else None


def _auroc(train: pd.DataFrame, test: pd.DataFrame, columns: Sequence[str]) -> float | None:
    if train["label"].nunique() < 2 or test["label"].nunique() < 2:
        return None
    return float(roc_auc_score(test["label"], ceiling_scores(train, test, columns)))


def ceiling_scores(train: pd.DataFrame, test: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.float64]:
    """
    Scores of the best model that knows some columns and nothing else: a logistic regression on them, the site one-hot;
    on the site alone its share of AD images in training.

    Args:
        train: what it is fitted to: the columns and ``label``.
        test: what it is to score: the columns.
        columns: such as :py:data:`AREAS`, or ``["site"]``; quantities are of :py:func:`.ad_mri_truth.read_truth`.

    Returns:
        a score for each row of ``test``.
    """
    return _site_share(train, test) if list(columns) == ["site"] else _logistic(train, test, columns)


def _site_share(train: pd.DataFrame, test: pd.DataFrame) -> NDArray[np.float64]:
    shares = train.groupby("site")["label"].mean()
    return test["site"].map(shares).fillna(train["label"].mean()).to_numpy()


def _logistic(train: pd.DataFrame, test: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.float64]:
    numeric = [column for column in columns if column != "site"]
    encoder = make_column_transformer(
        (StandardScaler(), numeric), (OneHotEncoder(handle_unknown="ignore"), [c for c in columns if c == "site"])
    )
    model = make_pipeline(encoder, LogisticRegression()).fit(train, train["label"])
    return model.decision_function(test)
