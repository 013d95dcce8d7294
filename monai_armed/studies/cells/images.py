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

"""Microscope images of single cells: the melanoma set's files or a CSV, and their cell-wise partitions."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_armed.data.held_out import held_out, study_name
from monai_armed.data.splits import split_seen_unseen

__all__ = ["METASTATIC_EFFICIENCY", "cell_partitions", "read_cells"]

METASTATIC_EFFICIENCY = {"m405": 1, "m481": 1, "m634": 1, "m498": 0, "m528": 0, "m597": 0, "m610": 0}
"""Label of the seven PDXs of Section 3.4: 1 where the patient had widespread metastases (high efficiency), 0 low."""

_UNLABELLED = -1
_SUFFIXES = {".png", ".tif", ".tiff"}
_TABLE = "cells.csv"
_NAME = re.compile(
    r"(?P<cell>(?P<batch>\d{6})_(?P<pdx>[A-Za-z0-9]+)_s\d+_t\d+_x\d+_y\d+_t\d+_[A-Za-z0-9]+)_f(?P<frame>\d+)"
)
_NAME_FORM = "DATE_PDX_sN_tN_xN_yN_tN_t7Ready_fN (such as 150312_m405_s02_t184_x629_y527_t308_t7Ready_f00047.png)"
_LABELS = {"0": 0, "1": 1, "low": 0, "high": 1, "-1": _UNLABELLED, "": _UNLABELLED}
_SEEN = {"1": True, "true": True, "seen": True, "0": False, "false": False, "unseen": False}

# Of ten cells in a row 7 train, 1 validates and 2 test, and of two neighbours at least one trains.
_TURNS = ("train", "train", "test", "train", "train", "val", "train", "train", "test", "train")


def read_cells(path: str | os.PathLike[str], labels: Mapping[str, int] | None = None) -> list[dict[str, Any]]:
    """Data list of cell images from a folder with the melanoma set's file names, or from a CSV.

    A folder without ``cells.csv`` is read by its file names (PNG or TIFF, in the folder itself), which give all but
    the label; that is :py:data:`METASTATIC_EFFICIENCY` of the PDX (Section 3.4 of https://arxiv.org/abs/2202.11783). A
    clone has the label of its PDX (``m405c2`` that of ``m405``). Cell lines and other PDXs are kept with label -1, for
    they train the reconstruction, and a warning names them.

    A CSV, separated by commas or semicolons, has one row an image with the columns ``file`` (relative to the CSV's
    folder), ``batch`` and ``label`` (0 or ``low``, 1 or ``high``, -1 or empty for none), and may have ``pdx``,
    ``cell``, ``frame`` and ``seen`` (whether the batch is seen). Without ``cell`` or ``frame`` they are taken from a
    file name like the melanoma set's, and where the name is another each image counts as frame 0 of a cell of its own.

    Args:
        path: folder of images, folder with ``cells.csv``, or CSV file.
        labels: label (0 or 1) of PDXs or cell lines, before any other source of labels.

    Returns:
        one dict an image, by path, with ``image`` and ``file`` (both the path), ``batch``, ``label`` (0 low or 1 high
        metastatic efficiency, -1 unlabelled), ``pdx`` (empty where unknown), ``cell`` (equal for all frames of a
        cell), ``frame`` and, where the CSV has it, ``seen``.

    Raises:
        FileNotFoundError: when the path or an image does not exist, or the folder holds no image.
        ValueError: when a file name does not parse, a column is missing, or a value in the CSV or ``labels`` is wrong.
    """
    own = {str(pdx): label for pdx, label in (labels or {}).items()}
    wrong = {pdx: label for pdx, label in own.items() if label not in (0, 1)}
    if wrong:
        raise ValueError(f"labels must be 0 (low) or 1 (high metastatic efficiency) for every PDX, got {wrong}.")
    place = Path(path)
    table = place / _TABLE if place.is_dir() else place
    if table.is_file():
        if table.suffix.lower() != ".csv":
            raise ValueError(f"{table} is neither a folder of cell images nor a CSV file.")
        datalist = _read_table(table, own)
    elif place.is_dir():
        datalist = _read_names(place, own)
    else:
        raise FileNotFoundError(f"there is no {place}; give a folder of cell images or a CSV file.")
    return sorted(datalist, key=lambda item: str(item["image"]))


def cell_partitions(
    dataset_dir: str | os.PathLike[str],
    simulate: Mapping[str, Any] | None = None,
    seed: int = 0,
    seen_batches: Collection[str] | None = None,
    min_cells: int | None = None,
    trained: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Read cell images and divide them: 70 / 10 / 20 % of the cells of seen batches for training, validation and test.

    All frames of a cell are in one partition (Section 3.4). Each batch and, in it, each label is divided in the same
    shares as nearly as its number of cells allows, and every seen batch has at least one cell for training, which
    takes two cells. A batch with a single cell is therefore unseen by default.

    Args:
        dataset_dir: folder or CSV as :py:func:`read_cells` takes it.
        simulate: if given, the folder is filled with simulated cells first; arguments of
            :py:func:`monai_armed.studies.cells.simulator.simulate_cells` but for the folder.
        seed: seed of the division.
        seen_batches: names of the seen batches. By default the column ``seen`` says it; without that column, or where
            ``min_cells`` is given, those with at least ``min_cells`` cells.
        min_cells: see ``seen_batches``; 2 by default. The paper's own choice, batches with at least two PDXs imaged
            (Section 3.4), can be given as ``seen_batches``.
        trained: what a model was trained on, from :py:func:`monai_armed.bundle.provenance`; it
            counts where it was the same study: then seen are the model's batches, and test cells those that it was not
            trained on.

    Returns:
        ``"train"``, ``"val"``, ``"test"`` and ``"unseen"``, each a MONAI data list; ``"batches"``, the names of
        the seen batches in the order of their cluster index; and ``"study"``, which draw of the simulation this is,
        or ``"data"``.

    Raises:
        ValueError: when fewer than two batches are seen, a seen batch has a single cell or no image, or both
            ``seen_batches`` and ``min_cells`` are given.
    """
    if seen_batches is not None and min_cells is not None:
        raise ValueError("give seen_batches or min_cells, not both.")
    if simulate is not None:
        from monai_armed.studies.cells.simulator import simulate_cells

        simulate_cells(dataset_dir, **simulate)
    datalist = read_cells(dataset_dir)
    study = study_name(Path(dataset_dir) / "truth" / "simulation.json")
    if trained is not None and trained["study"] == study:
        parts = held_out(datalist, trained, seen_batches, site_key="batch", subject_key="cell")
        return {**parts, "batches": trained["sites"], "study": study}
    if seen_batches is None:
        seen_batches = _default_seen(datalist, min_cells)
    seen, unseen = split_seen_unseen(datalist, seen_batches, site_key="batch")
    single = sorted(batch for batch, count in _count_cells(seen).items() if count < 2)
    if single:
        raise ValueError(f"the seen batches {single} have a single cell; make them unseen, for two are needed.")
    batches = sorted({item["batch"] for item in seen})
    if len(batches) < 2:
        raise ValueError(
            f"{batches[0]!r} is the only seen batch of {dataset_dir}; effects of the batch need at least two, with two "
            "cells each: give images of more batches, or call more of them seen."
        )
    partitions = _deal_cells(seen, seed)
    _warn_of_missing_labels(partitions)
    return {**partitions, "unseen": unseen, "batches": batches, "study": study}


def _read_names(folder: Path, own: Mapping[str, int]) -> list[dict[str, Any]]:
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES)
    if not files:
        raise FileNotFoundError(f"folder {folder} holds no cell image (*.png, *.tif, *.tiff) and no {_TABLE}.")
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


def _read_table(file: Path, own: Mapping[str, int]) -> list[dict[str, Any]]:
    try:
        with open(file, encoding="utf-8") as text:
            header = text.readline()
        # spreadsheets separate by semicolons where the comma is the decimal sign
        separator = ";" if header.count(";") > header.count(",") else ","
        table = pd.read_csv(file, sep=separator, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read as a table: {error}") from error
    for column in ("file", "batch", "label"):
        if column not in table:
            raise ValueError(
                f"{file} has no column {column!r}; it needs file, batch and label, and has {', '.join(table.columns)}."
            )
    if table.empty:
        raise ValueError(f"{file} has no rows.")
    empty = table.index[(table[["file", "batch"]] == "").any(axis=1)]
    if len(empty):
        raise ValueError(f"{file} has no file or no batch in {len(empty)} rows (first: line {empty[0] + 2}).")
    twice = table.index[table["file"].duplicated()]
    if len(twice):
        raise ValueError(f"{file} names the file {table['file'][twice[0]]!r} again in line {twice[0] + 2}.")
    read = pd.DataFrame({"label": _column(table, "label", _LABELS, file)})
    read["frame"] = _frames(table, file)
    if "seen" in table:
        read["seen"] = _column(table, "seen", _SEEN, file)
    datalist = [
        _item(file.parent, row, values, own)
        for row, values in zip(table.to_dict("records"), read.to_dict("records"), strict=True)
    ]
    missing = [item["image"] for item in datalist if not Path(item["image"]).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(datalist)} images of {file} do not exist (first: {missing[0]})."
        )
    _check_same(datalist, file)
    return datalist


def _item(folder: Path, row: Mapping[Any, str], values: Mapping[Any, Any], own: Mapping[str, int]) -> dict[str, Any]:
    image = folder / row["file"]
    name = _NAME.fullmatch(image.stem)
    pdx = row.get("pdx") or (name["pdx"] if name else "")
    item = {
        "image": str(image),
        "file": str(image),
        "batch": row["batch"],
        "label": _label(pdx, own, values["label"]),
        "pdx": pdx,
        "cell": row.get("cell") or (name["cell"] if name else row["file"]),
        "frame": values["frame"] if values["frame"] >= 0 else int(name["frame"]) if name else 0,
    }
    return item | ({"seen": values["seen"]} if "seen" in values else {})


def _column(table: pd.DataFrame, column: str, known: Mapping[str, Any], file: Path) -> list[Any]:
    values = table[column].str.strip().str.lower()
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"{file} has unknown values {unknown[:5]} in column {column!r}; known are {list(known)}.")
    return [known[value] for value in values]


def _frames(table: pd.DataFrame, file: Path) -> list[int]:
    values = table["frame"] if "frame" in table else pd.Series("", index=table.index)
    wrong = values[~values.str.fullmatch(r"\d*")]
    if len(wrong):
        raise ValueError(f"{file} has frame {wrong.iloc[0]!r} in line {wrong.index[0] + 2}; frames are whole numbers.")
    return [int(value) if value else -1 for value in values]


def _check_same(datalist: Iterable[Mapping[str, Any]], file: Path) -> None:
    for key, group in (("label", ("batch", "cell")), ("seen", ("batch",))):
        first: dict[tuple[str, ...], Any] = {}
        for item in datalist:
            name = tuple(item[part] for part in group)
            if first.setdefault(name, item.get(key)) != item.get(key):
                raise ValueError(f"{file} gives the {group[-1]} {name[-1]!r} more than one value of {key!r}.")


def _count_cells(datalist: Iterable[Mapping[str, Any]]) -> Counter[str]:
    return Counter(batch for batch, _ in {(item["batch"], item["cell"]) for item in datalist})


def _default_seen(datalist: Sequence[Mapping[str, Any]], min_cells: int | None) -> list[str]:
    if "seen" in datalist[0] and min_cells is None:
        return sorted({item["batch"] for item in datalist if item["seen"]})
    least = 2 if min_cells is None else min_cells
    counts = _count_cells(datalist)
    seen = sorted(batch for batch, count in counts.items() if count >= least)
    if not seen:
        raise ValueError(f"no batch has {least} cells (the largest has {max(counts.values())}), so none can be seen.")
    return seen


def _deal_cells(datalist: Sequence[dict[str, Any]], seed: int) -> dict[str, list[dict[str, Any]]]:
    """Give each cell its turn, batch by batch; every second batch begins with the other label."""
    generator = np.random.default_rng(seed)
    place = {batch: n for n, batch in enumerate(generator.permutation(sorted({item["batch"] for item in datalist})))}
    cells = sorted({(item["batch"], item["label"], item["cell"]) for item in datalist})
    shuffled = [cells[i] for i in generator.permutation(len(cells))]
    ordered = sorted(shuffled, key=lambda cell: (place[cell[0]], cell[1] * (-1) ** place[cell[0]]))
    start = int(generator.integers(len(_TURNS)))
    partition_of = {
        (batch, cell): _TURNS[(start + turn) % len(_TURNS)] for turn, (batch, _, cell) in enumerate(ordered)
    }
    partitions: dict[str, list[dict[str, Any]]] = {"train": [], "val": [], "test": []}
    for item in datalist:
        partitions[partition_of[item["batch"], item["cell"]]].append(item)
    return partitions


def _warn_of_missing_labels(partitions: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    missing = {name: sorted({0, 1} - {item["label"] for item in items}) for name, items in partitions.items()}
    short = [f"{name} has no image with label {' or '.join(map(str, none))}" for name, none in missing.items() if none]
    if short:
        warnings.warn(
            f"{'; '.join(short)}: there the phenotype can be neither learned nor measured; give more cells or another "
            "seed.",
            stacklevel=3,
        )
