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

"""Microscope images of single cells: the melanoma set's files, or a CSV."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from monai_armed.data.image_files import MICROSCOPY, is_image_file, list_image_files
from monai_armed.data.names import name_key, one_spelling, tidy_name
from monai_armed.data.reading import reading_options
from monai_armed.data.table import MISSING, check_classes, class_labels, read_table

__all__ = ["METASTATIC_EFFICIENCY", "cells_to_predict", "read_cells"]

METASTATIC_EFFICIENCY = {"m405": 1, "m481": 1, "m634": 1, "m498": 0, "m528": 0, "m597": 0, "m610": 0}
"""Label of the seven PDXs of Section 3.4: 1 where the patient had widespread metastases (high efficiency), 0 low."""

_UNLABELLED = -1
_TABLE = "cells.csv"
_PLACE = ("plate", "well")
_NAME = re.compile(
    r"(?P<cell>(?P<batch>\d{6})_(?P<pdx>[A-Za-z0-9]+)_s\d+_t\d+_x\d+_y\d+_t\d+_[A-Za-z0-9]+)_f(?P<frame>\d+)"
)
_NAME_FORM = "DATE_PDX_sN_tN_xN_yN_tN_t7Ready_fN (such as 150312_m405_s02_t184_x629_y527_t308_t7Ready_f00047.png)"
_LABELS = {"low": 0, "high": 1}
_SEEN = {"seen": 1, "unseen": 0}
_HINT = "name yours by image_column, site_column (of the batch), diagnosis_column (of the label) or subject_column."


def read_cells(
    path: str | os.PathLike[str],
    labels: Mapping[str, int] | None = None,
    diagnoses: Mapping[str, int] | None = None,
    diagnosis_column: str = "label",
    site_column: str = "batch",
    subject_column: str = "cell",
    image_column: str = "file",
    needs_label: bool = True,
) -> list[dict[str, Any]]:
    """Data list of cell images from a folder with the melanoma set's file names, or from a CSV.

    A folder without ``cells.csv`` is read by its file names (PNG or TIFF, in the folder itself), which give all but
    the label; that is :py:data:`METASTATIC_EFFICIENCY` of the PDX (Section 3.4 of https://arxiv.org/abs/2202.11783). A
    clone has the label of its PDX (``m405c2`` that of ``m405``). Cell lines and other PDXs are kept with label -1, for
    they train the reconstruction, and a warning names them.

    A CSV has one row an image with the columns ``file`` (relative to the CSV's folder), ``batch`` and ``label`` (0 or
    ``low``, 1 or ``high``, also as ``1.0`` or ``True``; -1, empty or ``NA`` for none), and may have ``pdx``, ``cell``,
    ``frame`` and ``seen`` (whether the batch is seen). Without ``cell`` or ``frame`` they are taken from a file name
    like the melanoma set's, and where the name is another each image counts as frame 0 of a cell of its own. Cells of
    one name in different batches are different cells; with the columns ``plate`` and ``well`` of a multi-well plate,
    also those of one name in different wells. A plate that is the batch is named by ``site_column="plate"``.

    Args:
        path: folder of images, folder with ``cells.csv``, or CSV file.
        labels: label (0 or 1) of PDXs or cell lines, before any other source of labels.
        diagnoses: label (0 or 1) of each word of the CSV's label column, in any case, in place of ``low`` and ``high``.
            Images with another word are kept with label -1, and a warning counts them.
        diagnosis_column: the CSV's column with the label.
        site_column: the CSV's column with the batch.
        subject_column: the CSV's column with the cell.
        image_column: the CSV's column with the file.
        needs_label: if False, images are to be predicted: a CSV may have no column with the label, and name images that
            do not exist, which fail when they are loaded, unless none does.

    Returns:
        one dict an image, by path, with ``image`` and ``file`` (both the path), ``batch``, ``label`` (0 low or 1 high
        metastatic efficiency, -1 unlabelled), ``pdx`` (empty where unknown), ``cell`` (equal for all frames of a
        cell), ``frame`` and, where the CSV has it, ``seen``.

    Raises:
        FileNotFoundError: when the path or an image does not exist, or the folder holds no image.
        ValueError: when a file name does not parse, a column is missing, or a value in the CSV, ``labels`` or
            ``diagnoses`` is wrong.
    """
    check_classes(labels, "labels")
    check_classes(diagnoses)
    own = {str(pdx): label for pdx, label in (labels or {}).items()}
    place = Path(path)
    table = place / _TABLE if place.is_dir() else place
    columns = {"file": image_column, "batch": site_column, "label": diagnosis_column, "cell": subject_column}
    if table.is_file():
        if table.suffix.lower() not in (".csv", ".tsv", ".txt"):
            raise ValueError(f"{table} is neither a folder of cell images nor a CSV file.")
        datalist = _read_table(table, columns, own, diagnoses, needs_label)
    elif place.is_dir():
        datalist = _read_names(place, own)
    else:
        raise FileNotFoundError(f"there is no {place}; give a folder of cell images or a CSV file.")
    return sorted(datalist, key=lambda item: str(item["image"]))


def cells_to_predict(path: str | os.PathLike[str], reading: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """
    Images to be predicted, as a MONAI data list; a table needs no column with the label.

    Args:
        path: folder or CSV as :py:func:`read_cells` takes it.
        reading: how the table is read, see :py:func:`monai_armed.studies.cells.cell_partitions`.
    """
    return read_cells(path, needs_label=False, **reading_options(reading))


def _read_names(folder: Path, own: Mapping[str, int]) -> list[dict[str, Any]]:
    files = list_image_files(folder, MICROSCOPY, below=False)
    if not files:
        below = len(list_image_files(folder, MICROSCOPY))
        hint = f" itself; for the {below} in folders below give a CSV with the columns file and batch" if below else ""
        raise FileNotFoundError(f"folder {folder} holds no cell image (*.png, *.tif, *.tiff) and no {_TABLE}{hint}.")
    named = [(file, name) for file in files if (name := _NAME.fullmatch(file.stem))]
    strange = sorted(file.name for file in set(files) - {file for file, _ in named})
    if strange:
        raise ValueError(
            f"{len(strange)} of {len(files)} file names in {folder} are not of the form {_NAME_FORM} (first: "
            f"{strange[0]}); rename them or give a CSV with the columns file, batch and label."
        )
    known = {**METASTATIC_EFFICIENCY, **own}
    datalist = []
    for file, name in named:
        label = _label(name["pdx"], known)
        item = {"batch": name["batch"], "label": label, "pdx": name["pdx"], "cell": name["cell"]}
        datalist.append({"image": str(file), "file": str(file)} | item | {"frame": int(name["frame"])})
    _warn_of_unlabelled(datalist)
    return datalist


def _label(pdx: str, known: Mapping[str, int], otherwise: int = _UNLABELLED) -> int:
    return known.get(pdx, known.get(re.sub(r"c\d+$", "", pdx), otherwise))


def _warn_of_unlabelled(datalist: Sequence[Mapping[str, Any]]) -> None:
    unknown = Counter(item["pdx"] for item in datalist if item["label"] == _UNLABELLED)
    if unknown:
        counts = ", ".join(f"{pdx} ({count})" for pdx, count in sorted(unknown.items()))
        warnings.warn(
            f"{sum(unknown.values())} of {len(datalist)} cell images are of no PDX with a known metastatic efficiency "
            f"and have label -1, so that they train the reconstruction alone: {counts}.",
            stacklevel=4,
        )


def _read_table(
    file: Path,
    columns: Mapping[str, str],
    own: Mapping[str, int],
    diagnoses: Mapping[str, int] | None,
    needs_label: bool,
) -> list[dict[str, Any]]:
    """The rows of a CSV, whose names of some ``columns`` may be others."""
    optional = ["cell", *([] if needs_label else ["label"])]
    needed = [name for column, name in columns.items() if column not in optional or name != column]
    table = read_table(file, needed, (*optional, "pdx", "frame", "seen", *_PLACE), _HINT)
    if columns["label"] not in table:
        table["label"] = ""
    table = table.assign(**{column: table[name] for column, name in columns.items() if name in table})
    empty = table.index[table[["file", "batch"]].apply(lambda c: c.str.casefold().isin(MISSING)).any(axis=1)]
    if len(empty):
        raise ValueError(f"{file} has no file or no batch in {len(empty)} rows (first: line {empty[0] + 2}).")
    table["batch"] = one_spelling(table["batch"], "batch", file)
    table["label"] = _labels(table["label"].tolist(), diagnoses, file)
    table["frame"] = _frames(table, file)
    if "seen" in table:
        table["seen"] = [bool(seen) for seen in _known(table["seen"].tolist(), "seen", _SEEN, file)]
    datalist = [_item(file.parent, row, own) for row in table.to_dict("records")]
    missing = [item["image"] for item in datalist if not _is_there(item["image"])]
    if missing and (needs_label or len(missing) == len(datalist)):  # one of many to predict is left out when loaded
        raise FileNotFoundError(
            f"{len(missing)} of {len(datalist)} images of {file} do not exist (first: {missing[0]})."
        )
    places = pd.Series([os.path.realpath(item["image"]) for item in datalist], table.index)
    if len(twice := table.index[places.duplicated()]):
        raise ValueError(f"{file} names the file {table['file'][twice[0]]!r} again in line {twice[0] + 2}.")
    _check_same(datalist, file)
    return datalist


def _is_there(image: str) -> bool:
    return is_image_file(image, ("",)) and Path(image).is_file()  # with any ending: the table says that it is one


def _item(folder: Path, row: Mapping[Any, Any], own: Mapping[str, int]) -> dict[str, Any]:
    image = folder / row["file"]
    name = _NAME.fullmatch(image.stem)
    pdx, cell = ("" if (text := row.get(key, "")).casefold() in MISSING else text for key in ("pdx", "cell"))
    pdx = pdx or (name["pdx"] if name else "")
    if cell:  # cells are numbered anew in each well
        cell = "_".join([*(row[key] for key in _PLACE if row.get(key, "").casefold() not in MISSING), cell])
    item = {
        "image": str(image),
        "file": str(image),
        "batch": row["batch"],
        "label": _label(pdx, own, row["label"]),
        "pdx": pdx,
        "cell": tidy_name(cell) if cell else (name["cell"] if name else row["file"]),
        "frame": row["frame"] if row["frame"] >= 0 else int(name["frame"]) if name else 0,
    }
    return item | ({"seen": row["seen"]} if "seen" in row else {})


def _labels(words: Sequence[str], diagnoses: Mapping[str, int] | None, file: Path) -> list[int]:
    """Labels of the words of a table; without a mapping of the user's, a word that is not known is an error."""
    filled = ["-1" if word.casefold() in MISSING else word for word in words]
    if diagnoses is None:
        return _known(filled, "label", {**_LABELS, "-1": _UNLABELLED}, file)
    labels = class_labels(filled, {**diagnoses, "-1": _UNLABELLED})
    if others := Counter(word for word, label in zip(words, labels) if label is None):
        counted = ", ".join(f"{word} ({count})" for word, count in others.most_common(10))
        warnings.warn(
            f"{sum(others.values())} of {len(words)} cell images of {file} have a label that is none of "
            f"{', '.join(map(str, diagnoses))}, and train the reconstruction alone: {counted}.",
            stacklevel=4,
        )
    return [_UNLABELLED if label is None else label for label in labels]


def _known(words: Sequence[str], column: str, known: Mapping[str, int], file: Path) -> list[int]:
    found = class_labels(words, known)
    if unknown := sorted({word for word, label in zip(words, found) if label is None}):
        hint = ": say by diagnoses which label a word stands for." if column == "label" else "."
        raise ValueError(
            f"{file} has unknown values {unknown[:5]} in column {column!r}; known are 0, 1, {', '.join(known)}{hint}"
        )
    return [label for label in found if label is not None]


def _frames(table: pd.DataFrame, file: Path) -> list[int]:
    values = table["frame"].map(tidy_name) if "frame" in table else pd.Series("", index=table.index)
    values = values.where(~values.str.casefold().isin(MISSING), "")
    wrong = values[~values.str.fullmatch(r"\d*")]
    if len(wrong):
        raise ValueError(f"{file} has frame {wrong.iloc[0]!r} in line {wrong.index[0] + 2}; frames are whole numbers.")
    return [int(value) if value else -1 for value in values]


def _check_same(datalist: Iterable[Mapping[str, Any]], file: Path) -> None:
    for key, group in (("label", ("batch", "cell")), ("seen", ("batch",))):
        first: dict[tuple[str, ...], Any] = {}
        for item in datalist:
            name = tuple(name_key(item[part]) for part in group)
            if first.setdefault(name, item.get(key)) != item.get(key):
                raise ValueError(f"{file} gives the {group[-1]} {item[group[-1]]!r} more than one value of {key!r}.")
