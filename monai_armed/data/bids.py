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

"""Data lists from a user's BIDS tree or CSV file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from .bids_scans import one_scan_a_session, unmatched
from .volume_reader import VOLUME_ENDINGS

__all__ = ["DIAGNOSES", "left_out_of_bids", "list_bids_images", "load_bids_datalist", "load_csv_datalist"]

DIAGNOSES = {"CN": 0, "AD": 1}
"""Class labels of the diagnoses."""


def load_bids_datalist(
    root: str | os.PathLike[str],
    site_column: str = "site",
    diagnosis_column: str = "diagnosis",
    diagnoses: Mapping[str, int] | None = None,
    suffix: str = "T1w",
) -> list[dict[str, Any]]:
    """Data list of the images of a BIDS tree.

    Sites and diagnoses are those of ``participants.tsv``; images are ``sub-*/[ses-*/]anat/*_T1w.nii[.gz]``, any
    number of sessions a subject, one image each (see :func:`list_bids_images`). Subjects without an image, images
    without a subject and further images are left out with a warning.

    Args:
        root: the folder that holds ``participants.tsv``.
        site_column: column of ``participants.tsv`` with the site.
        diagnosis_column: column of ``participants.tsv`` with the diagnosis.
        diagnoses: class label of each diagnosis; ``{"CN": 0, "AD": 1}`` by default.
        suffix: BIDS suffix of the images.

    Returns:
        one dict an image, sorted by path, with the keys ``image`` (path), ``label`` (int), ``site``, ``subject`` and,
        where there are, ``session``, ``manufacturer`` and ``site_role``.

    Raises:
        FileNotFoundError: when the folder, its ``participants.tsv`` or any image is missing.
        ValueError: when a column is missing, a site is empty, a diagnosis is unknown, or a participant has two rows.
    """
    folder = Path(root)
    participants = folder / "participants.tsv"
    if not folder.is_dir():
        raise FileNotFoundError(f"dataset folder {folder} does not exist; give the folder that holds participants.tsv.")
    if not participants.is_file():
        raise FileNotFoundError(f"{folder} has no participants.tsv; a BIDS tree with that file is needed.")
    table = _read_table(participants, "\t", ["participant_id", site_column, diagnosis_column])
    labels = _labels(table[diagnosis_column], diagnoses or DIAGNOSES, participants)
    _check_filled(table, site_column, participants)
    repeated = table["participant_id"][table["participant_id"].duplicated()]
    if len(repeated):
        raise ValueError(
            f"{participants} has more than one row of {repeated.nunique()} participants (first: {repeated.iloc[0]}): "
            "give one row each, or, where the diagnosis changes between visits, a CSV with one row an image."
        )

    datalist: list[dict[str, Any]] = []
    for row, label in zip(table.to_dict("records"), labels, strict=True):
        subject = str(row["participant_id"])
        subject = subject if subject.startswith("sub-") else f"sub-{subject}"
        for image in list_bids_images(folder, subject, suffix):
            item = {"image": str(image), "label": label, "site": row[site_column], "subject": subject}
            session = image.parent.parent.name
            extra = {"session": session} if session.startswith("ses-") else {}
            datalist.append(item | extra | _optional(row))
    if not datalist:
        raise FileNotFoundError(f"no image sub-*/[ses-*/]anat/*_{suffix}.nii[.gz] of a participant found in {folder}.")
    for sentence in left_out_of_bids(folder, table["participant_id"], suffix):
        warnings.warn(sentence, stacklevel=2)
    return _same_keys(sorted(datalist, key=lambda item: item["image"]))


def list_bids_images(root: str | os.PathLike[str], subject: str = "sub-*", suffix: str = "T1w") -> list[Path]:
    """Images of a BIDS tree by path alone, one for each subject and session.

    Derivatives (``desc-brain``, ``space-MNI``) and further runs are not further images of a subject: see
    :func:`monai_armed.data.bids_scans.one_scan_a_session`.

    Args:
        root: folder of the tree.
        subject: folder name of a subject, or a pattern of such names.
        suffix: BIDS suffix of the images.

    Returns:
        the files, sorted.
    """
    return one_scan_a_session(_all_images(Path(root), subject, suffix))


def left_out_of_bids(root: Path, participants: Collection[str], suffix: str = "T1w") -> list[str]:
    """What of a BIDS tree is not in its data list, a sentence each; see :func:`monai_armed.data.bids_scans.unmatched`.

    Args:
        root: folder of the tree.
        participants: names of the rows of ``participants.tsv``.
        suffix: BIDS suffix of the images.
    """
    there = _all_images(root, "sub-*", suffix)
    return unmatched(participants, one_scan_a_session(there), there, root, suffix)


def _all_images(root: Path, subject: str, suffix: str) -> list[Path]:
    places = (f"{subject}/{session}anat/*_{suffix}" for session in ("", "ses-*/"))
    found = (path for place in places for end in VOLUME_ENDINGS for path in root.glob(place + end))
    return [path for path in found if not path.name.startswith(".") and path.suffix != ".hdr"]


def load_csv_datalist(
    path: str | os.PathLike[str],
    image_column: str = "image",
    label_column: str = "label",
    site_column: str = "site",
    subject_column: str = "subject",
    diagnoses: Mapping[str, int] | None = None,
) -> list[dict[str, Any]]:
    """Data list of a CSV file with one row an image.

    Args:
        path: the CSV file. Relative image paths are taken from its folder.
        image_column: column with the path of the NIfTI file.
        label_column: column with the class label (0 or 1) or the diagnosis.
        site_column: column with the site.
        subject_column: column with the subject.
        diagnoses: class label of each diagnosis; ``{"CN": 0, "AD": 1}`` by default.

    Returns:
        one dict a row, as :func:`load_bids_datalist` gives.

    Raises:
        FileNotFoundError: when the file or an image in it is missing.
        ValueError: when a column is missing, a site or subject is empty, a diagnosis is unknown, or an image is listed
            twice.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"CSV file {file} does not exist.")
    table = _read_table(file, ",", [image_column, label_column, site_column, subject_column])
    known = dict(diagnoses or DIAGNOSES)
    known |= {text: label for label in known.values() for text in (str(label), f"{label}.0")}  # pandas writes 1.0
    labels = _labels(table[label_column], known, file)
    for column in (image_column, site_column, subject_column):
        _check_filled(table, column, file)
    datalist = []
    for row, label in zip(table.to_dict("records"), labels, strict=True):
        item = {
            "image": str(file.parent / row[image_column]),
            "label": label,
            "site": row[site_column],
            "subject": row[subject_column],
        }
        extra = {"session": row["session"]} if row.get("session") else {}
        datalist.append(item | extra | _optional(row))
    missing = [item["image"] for item in datalist if not Path(item["image"]).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(datalist)} images of {file} do not exist (first: {missing[0]})."
        )
    images = pd.Series([os.path.realpath(item["image"]) for item in datalist])
    if images.duplicated().any():
        twice = images[images.duplicated()]
        raise ValueError(f"{file} lists {len(twice)} images twice (first: {twice.iloc[0]}).")
    return _same_keys(datalist)


def _same_keys(datalist: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What only some images have is empty for the others: a batch holds what all of its items do."""
    keys = dict.fromkeys(key for item in datalist for key in item)
    return [{key: item.get(key, "") for key in keys} for item in datalist]


def _read_table(file: Path, separator: str, columns: list[str]) -> pd.DataFrame:
    try:
        table = pd.read_csv(file, sep=separator, dtype=str, keep_default_na=False)
        table = table.apply(lambda column: column.str.strip())
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read as a table: {error}") from error
    for column in columns:
        if column not in table.columns:
            raise ValueError(f"{file} has no column {column!r}; it has {', '.join(map(repr, table.columns))}.")
    if table.empty:
        raise ValueError(f"{file} has no rows.")
    return table


def _check_filled(table: pd.DataFrame, column: str, file: Path) -> None:
    empty = table.index[table[column].isin(["", "n/a"])]
    if len(empty):
        raise ValueError(f"{file} has no {column!r} in {len(empty)} rows (first: line {empty[0] + 2}).")


def _labels(column: pd.Series, diagnoses: Mapping[str, int], file: Path) -> list[int]:
    unknown = sorted(set(column) - set(diagnoses))
    if unknown:
        raise ValueError(
            f"{file} has unknown values {unknown[:5]} in column {column.name!r}; known are {sorted(diagnoses)}."
        )
    return [diagnoses[value] for value in column]


def _optional(row: Mapping[Any, Any]) -> dict[str, str]:
    return {key: row[key] for key in ("manufacturer", "site_role") if row.get(key, "") not in ("", "n/a")}
