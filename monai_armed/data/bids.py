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
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from .bids_scans import one_scan_a_session, unmatched
from .image_files import VOLUMES, distinct_scans, ending, is_image_file
from .names import one_spelling, tidy_name
from .table import MISSING, class_labels, labelled_rows, read_table

__all__ = ["DIAGNOSES", "left_out_of_bids", "list_bids_images", "load_bids_datalist", "load_csv_datalist"]

DIAGNOSES = {"CN": 0, "AD": 1}
"""Class labels of the diagnoses."""

_OPTIONAL = ("manufacturer", "site_role")
_HINT = "name yours by site_column, diagnosis_column, subject_column or image_column."


def load_bids_datalist(
    root: str | os.PathLike[str],
    site_column: str = "site",
    diagnosis_column: str = "diagnosis",
    diagnoses: Mapping[str, int] | None = None,
    suffix: str = "T1w",
    subject_column: str = "participant_id",
) -> list[dict[str, Any]]:
    """Data list of the images of a BIDS tree.

    Sites and diagnoses are those of ``participants.tsv``; images are ``sub-*/[ses-*/]anat/*_T1w.nii[.gz]``, any
    number of sessions a subject, one image each (see :func:`list_bids_images`). Warnings name subjects without an
    image, images without a subject and further images, which are left out, and count participants with another
    diagnosis, who are left out, those whose ``sessions.tsv`` has another diagnosis than their row, and sites that are
    spelled in two ways, which are taken as one.

    Args:
        root: the folder that holds ``participants.tsv``.
        site_column: column of ``participants.tsv`` with the site.
        diagnosis_column: column of ``participants.tsv`` with the diagnosis.
        diagnoses: class label of each diagnosis, in any case; ``{"CN": 0, "AD": 1}`` by default.
        suffix: BIDS suffix of the images.
        subject_column: column of ``participants.tsv`` with the participant.

    Returns:
        one dict an image, sorted by path, with the keys ``image`` (path), ``label`` (int), ``site``, ``subject`` and,
        where there are, ``session``, ``manufacturer`` and ``site_role``.

    Raises:
        FileNotFoundError: when the folder, its ``participants.tsv`` or any image is missing.
        ValueError: when a column is missing, a site is empty, no diagnosis is known, or a participant has two rows.
    """
    folder = Path(root)
    participants = folder / "participants.tsv"
    if not folder.is_dir():
        raise FileNotFoundError(f"dataset folder {folder} does not exist; give the folder that holds participants.tsv.")
    if not participants.is_file():
        raise FileNotFoundError(f"{folder} has no participants.tsv; a BIDS tree with that file is needed.")
    classes = dict(diagnoses or DIAGNOSES)
    table = read_table(participants, [subject_column, site_column, diagnosis_column], _OPTIONAL, _HINT)
    all_rows = table[subject_column].map(_folder_name)
    table = labelled_rows(table, diagnosis_column, classes, participants)  # warns of the others
    _check_filled(table, (subject_column, site_column), participants)
    subjects = table[subject_column].map(_folder_name)
    repeated = table[subject_column][subjects.duplicated()]
    if len(repeated):
        raise ValueError(
            f"{participants} has more than one row of {repeated.nunique()} participants (first: {repeated.iloc[0]}): "
            "give one row each, or, where the diagnosis changes between visits, a CSV with one row an image."
        )
    table = table.assign(subject=subjects, site=one_spelling(table[site_column], "site", participants))
    datalist = [item for row in table.to_dict("records") for item in _images_of(folder, row, suffix)]
    if not datalist:
        raise FileNotFoundError(f"no image sub-*/[ses-*/]anat/*_{suffix}.nii[.gz] of a participant found in {folder}.")
    for sentence in left_out_of_bids(folder, subjects, suffix, set(all_rows) - set(subjects)):
        warnings.warn(sentence, stacklevel=2)
    if broken := [item["image"] for item in datalist if not Path(item["image"]).is_file()]:
        raise FileNotFoundError(
            f"{len(broken)} of {len(datalist)} images of {folder} are links to files that are not there (first: "
            f"{broken[0]}): fetch the files, or delete the links."
        )
    in_sessions = list(_session_diagnoses(folder, subjects, subject_column, diagnosis_column))
    _warn_of_other_diagnoses(in_sessions, dict(zip(subjects, table["class"])), diagnosis_column, classes)
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


def left_out_of_bids(
    root: Path, participants: Collection[str], suffix: str = "T1w", told: Collection[str] = ()
) -> list[str]:
    """What of a BIDS tree is not in its data list, a sentence each; see :func:`monai_armed.data.bids_scans.unmatched`.

    Args:
        root: folder of the tree.
        participants: names of the rows of ``participants.tsv``.
        suffix: BIDS suffix of the images.
        told: folder names of subjects with a row that is left out for a reason that was told already.
    """
    there = [image for image in _all_images(root, "sub-*", suffix) if image.relative_to(root).parts[0] not in told]
    return unmatched(participants, one_scan_a_session(there), there, root, suffix)


def _all_images(root: Path, subject: str, suffix: str) -> list[Path]:
    found = (path for session in ("", "ses-*/") for path in root.glob(f"{subject}/{session}anat/*_{suffix}.*"))
    return [p for p in found if is_image_file(p) and p.name[: -len(ending(p, VOLUMES) or "")].endswith(suffix)]


def load_csv_datalist(
    path: str | os.PathLike[str],
    image_column: str = "image",
    diagnosis_column: str = "label",
    site_column: str = "site",
    subject_column: str = "subject",
    diagnoses: Mapping[str, int] | None = None,
) -> list[dict[str, Any]]:
    """Data list of a CSV file with one row an image.

    Args:
        path: the CSV file. Relative image paths are taken from its folder.
        image_column: column with the path of the NIfTI file.
        diagnosis_column: column with the diagnosis, or with the class label itself.
        site_column: column with the site.
        subject_column: column with the subject.
        diagnoses: class label of each diagnosis, in any case; ``{"CN": 0, "AD": 1}`` by default. Rows with another
            one are left out, and a warning counts them.

    Returns:
        one dict a row, as :func:`load_bids_datalist` gives.

    Raises:
        FileNotFoundError: when the file or an image in it is missing.
        ValueError: when a column is missing, a site or subject is empty, no diagnosis is known, or an image is listed
            twice.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"CSV file {file} does not exist.")
    if file.suffix.lower() not in (".csv", ".tsv", ".txt"):
        raise ValueError(f"{file} is neither a folder nor a CSV file: give a BIDS tree, or a table of its images.")
    needed = [image_column, diagnosis_column, site_column, subject_column]
    table = read_table(file, needed, (*_OPTIONAL, "session"), _HINT)
    table = labelled_rows(table, diagnosis_column, diagnoses or DIAGNOSES, file)
    _check_filled(table, (image_column, site_column, subject_column), file)
    table = table.assign(site=one_spelling(table[site_column], "site", file))
    datalist = []
    for row in table.to_dict("records"):
        item = {"image": str(file.parent / row[image_column]), "label": int(row["class"]), "site": row["site"]}
        extra = {"session": row["session"]} if row.get("session") else {}
        datalist.append(item | {"subject": tidy_name(row[subject_column])} | extra | _optional(row))
    missing = [item["image"] for item in datalist if not (is_image_file(i := item["image"]) and Path(i).is_file())]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(datalist)} images of {file} do not exist or are no NIfTI files, *.nii or "
            f"*.nii.gz (first: {missing[0]})."
        )
    images = pd.Series([os.path.realpath(item["image"]) for item in datalist])
    if images.duplicated().any():
        twice = images[images.duplicated()]
        raise ValueError(f"{file} lists {len(twice)} images twice (first: {twice.iloc[0]}).")
    return _same_keys(_distinct(datalist))


def _folder_name(participant: str) -> str:
    """A participant's folder, in whose name BIDS has ``sub-`` before the label."""
    name = tidy_name(participant)
    return name if name.startswith("sub-") else f"sub-{name}"


def _images_of(folder: Path, row: Mapping[Any, Any], suffix: str) -> list[dict[str, Any]]:
    """The images of a participant."""
    items = []
    for image in list_bids_images(folder, row["subject"], suffix):
        item = {"image": str(image), "label": int(row["class"]), "site": row["site"], "subject": row["subject"]}
        session = image.parent.parent.name
        extra = {"session": session} if session.startswith("ses-") else {}
        items.append(item | extra | _optional(row))
    return items


def _session_diagnoses(
    folder: Path, subjects: Iterable[str], subject_column: str, column: str
) -> Iterator[tuple[str, str]]:
    """Subject and diagnosis by the sessions.tsv of the subjects, or of the tree."""
    for subject in subjects:
        for file in sorted(folder.glob(f"{subject}/*sessions.tsv")):
            yield from ((subject, word) for word in _column(file, [column], column))
    for file in sorted(folder.glob("*sessions.tsv")):
        needed = [subject_column, column]
        names = map(_folder_name, _column(file, needed, subject_column))
        yield from zip(names, _column(file, needed, column))


def _column(file: Path, needed: list[str], column: str) -> list[str]:
    """A column of a table; nothing where it lacks one that is needed."""
    try:
        return read_table(file, needed)[column].tolist()
    except ValueError:
        return []


def _warn_of_other_diagnoses(
    in_sessions: Sequence[tuple[str, str]], label: Mapping[str, int], column: str, diagnoses: Mapping[str, int]
) -> None:
    """All images of a subject have their label from participants.tsv, also those after the diagnosis has changed."""
    labels = class_labels([word for _, word in in_sessions], diagnoses)
    changed = {
        subject: word
        for (subject, word), session_label in zip(in_sessions, labels)
        if subject in label and word.casefold() not in MISSING and session_label != label[subject]
    }
    if changed:
        subject, word = next(iter(changed.items()))
        warnings.warn(
            f"{len(changed)} subjects have another {column} in sessions.tsv than in participants.tsv, which all their "
            f"images have it from (first: {subject}, {word}): to give each session its own, list the images in a CSV "
            "with one row each.",
            stacklevel=3,
        )


def _distinct(datalist: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = {str(path) for path in distinct_scans(Path(item["image"]) for item in datalist)}
    return [item for item in datalist if str(Path(item["image"])) in kept]


def _same_keys(datalist: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What only some images have is empty for the others: a batch holds what all of its items do."""
    keys = dict.fromkeys(key for item in datalist for key in item)
    return [{key: item.get(key, "") for key in keys} for item in datalist]


def _check_filled(table: pd.DataFrame, columns: Sequence[str], file: Path) -> None:
    for column in columns:
        empty = table.index[table[column].str.casefold().isin(MISSING)]
        if len(empty):
            written = f", {table[column][empty[0]]!r}" if table[column][empty[0]] else ""
            raise ValueError(f"{file} has no {column!r} in {len(empty)} rows (first: line {empty[0] + 2}{written}).")


def _optional(row: Mapping[Any, Any]) -> dict[str, str]:
    return {key: row[key] for key in _OPTIONAL if str(row.get(key, "")).casefold() not in MISSING}
