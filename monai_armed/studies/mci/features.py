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
from collections.abc import Mapping, Sequence
from typing import Any

from monai_armed.data.reading import reading_options
from monai_armed.studies.mci.partitions import mci_partitions, read_new_subjects
from monai_armed.transforms.table import EncodeRow

__all__ = ["fit_features", "subjects_to_predict"]


def fit_features(partitions: Mapping[str, Any]) -> EncodeRow:
    """
    Means and standard deviations of the features, learned from the training subjects.

    Args:
        partitions: from :py:func:`monai_armed.studies.mci.mci_partitions`.

    Returns:
        what turns a subject's row into the vector that the network takes.
    """
    return EncodeRow.fit([item["image"] for item in partitions["train"]], partitions["features"])


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
