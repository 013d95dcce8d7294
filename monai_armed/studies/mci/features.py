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

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from monai_armed.data.reading import reading_options
from monai_armed.studies.mci.partitions import mci_partitions, read_new_subjects, warn_of_words
from monai_armed.transforms.table import EncodeRow

__all__ = ["agreed_features", "fit_features", "subjects_to_predict"]

FAR = 3  # s.d. that the mean of a hospital's own subjects may be off the agreed one
WIDER = 10  # times that their s.d. may be the agreed one, or a tenth of it


def fit_features(partitions: Mapping[str, Any]) -> EncodeRow:
    """
    Means and standard deviations of the features, learned from the training subjects.

    Args:
        partitions: from :py:func:`monai_armed.studies.mci.mci_partitions`.

    Returns:
        what turns a subject's row into the vector that the network takes.
    """
    return EncodeRow.fit([item["image"] for item in partitions["train"]], partitions["features"])


def agreed_features(partitions: Mapping[str, Any], path: str | os.PathLike[str]) -> EncodeRow:
    """
    Means and standard deviations that hospitals have agreed on, held against a hospital's own subjects: what they all
    lack would be the mean of everybody, and another unit another feature. Warns of words that are not known, and of
    numbers that are on another scale by far.

    Args:
        partitions: of the hospital, from :py:func:`monai_armed.studies.mci.mci_partitions`.
        path: what :py:meth:`monai_armed.transforms.EncodeRow.save` wrote in one of the hospitals.

    Returns:
        what turns a subject's row into the vector that the network takes.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when of an agreed feature the hospital has no value at all, or no word that is known.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no {path} with the means and scales that the hospitals have agreed on.")
    encode = EncodeRow.load(Path(path))
    table = pd.DataFrame([item["image"] for name in ("train", "val", "test", "unseen") for item in partitions[name]])
    of_all = [name for name in dict.fromkeys(column["column"] for column in encode.columns) if name in table]
    known = {column["column"]: column["known"] for column in encode.columns if "known" in column}
    words = {name: sorted(table[name].dropna().unique()) for name in of_all}
    lacking = [
        f"{name} (it has {', '.join(words[name])}, agreed are {', '.join(known[name])})" if words[name] else name
        for name in of_all
        if not words[name] or (name in known and not {*words[name]} & {*known[name]})
    ]
    if lacking:
        raise ValueError(
            f"no subject of this hospital has a value, or a known word, of {', '.join(lacking)}, on which hospitals "
            f"have agreed in {path}: all would count as average. Give these columns, or agree on a list without them."
        )
    warn_of_words(table, encode, "this hospital's table")
    for column in encode.columns:
        if column["category"] is None and column["weight"] and column["column"] in table:
            _warn_of_scale(table[column["column"]].astype(float), column)
    return encode


def _warn_of_scale(values: pd.Series, column: Mapping[str, Any]) -> None:
    mean, scale = float(values.mean()), float(values.std(ddof=0))
    far = abs(mean - column["mean"]) * column["weight"] > FAR
    if far or (scale > 0 and not 1 / WIDER < scale * column["weight"] < WIDER):
        warnings.warn(
            f"{column['name']} has mean {mean:.4g} and s.d. {scale:.4g} in this hospital, where the agreed ones are "
            f"{column['mean']:.4g} and {1 / column['weight']:.4g}: is it in the same unit?",
            stacklevel=3,
        )


def subjects_to_predict(
    path: str | os.PathLike[str] | None,
    encode: EncodeRow,
    sites: Sequence[str],
    reading: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """
    Subjects to be predicted, as a MONAI data list.

    Args:
        path: CSV file, see :py:func:`monai_armed.studies.mci.read_new_subjects`; None: those of the simulated study's
            unseen sites.
        encode: of the model.
        sites: the model's seen sites.
        reading: ``site_column`` and ``subject_column`` of the table, by name; no diagnosis is read.
    """
    if path is None:
        return mci_partitions()["unseen"]
    columns = reading_options(reading, ("site_column", "subject_column"), ("diagnoses", "diagnosis_column"))
    return read_new_subjects(path, encode, sites, **columns)
