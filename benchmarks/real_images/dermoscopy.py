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

"""Reading dermoscopic images as people download them, and parting them with one source left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from monai_armed.data.held_out import held_out
from monai_armed.data.sample_marks import study_name

__all__ = ["MALIGNANT", "dermoscopy_partitions", "leave_one_out", "read_dermoscopy"]

MALIGNANT = ("mel", "bcc", "akiec")
_TABLES = ("images.csv", "HAM10000_metadata", "HAM10000_metadata.csv", "HAM10000_metadata.tab")


def read_dermoscopy(folder: str | Path) -> pd.DataFrame:
    """
    Args:
        folder: of HAM10000 as it is downloaded (``HAM10000_metadata`` with the column ``dataset``, and the JPEGs in any
            folders below), or of ``images.csv`` with the columns ``file``, ``lesion_id``, ``source`` and ``dx``.

    Returns:
        a row an image, the first of each lesion: ``image`` (its path), ``source``, ``label`` (1: malignant).

    Raises:
        FileNotFoundError: when there is no table, or images of it are not in the folder.
        ValueError: when the table has no column of the source.
    """
    folder = Path(folder)
    found = [folder / name for name in _TABLES if (folder / name).is_file()]
    if not found:
        raise FileNotFoundError(f"{folder} has no table of images: one of {', '.join(_TABLES)} is looked for.")
    table = pd.read_csv(found[0], sep=None, engine="python").rename(columns={"dataset": "source"})
    if missing := {"source", "dx", "lesion_id"} - set(table):
        raise ValueError(
            f"{found[0].name} lacks {', '.join(sorted(missing))}; the column 'dataset', the source of each image, is "
            "in the table of Harvard Dataverse (doi:10.7910/DVN/DBW86T) and not in all copies."
        )
    if "file" in table:
        table["image"] = [str(folder / file) for file in table["file"]]
    else:
        files = {path.stem: str(path) for path in folder.rglob("ISIC_*.jpg") if not path.name.startswith("._")}
        table["image"] = [files.get(name, f"{name}.jpg") for name in table["image_id"]]
    absent = [name for name in table["image"] if not Path(name).is_file()]
    if absent:
        raise FileNotFoundError(f"{len(absent)} images of {found[0].name} are not in {folder}, the first {absent[0]}.")
    table = table.sort_values(["lesion_id", "image"]).drop_duplicates("lesion_id")
    table["label"] = table["dx"].isin(MALIGNANT).astype(int)
    return table[["image", "source", "label"]].reset_index(drop=True)


def leave_one_out(table: pd.DataFrame, left_out: str, seed: int) -> dict[str, pd.DataFrame]:
    """
    Args:
        table: from :py:func:`read_dermoscopy`.
        left_out: the source that no part of the training has.
        seed: of the split.

    Returns:
        rows of ``"train"`` (60 %), ``"val"`` and ``"test"`` (20 % each, stratified by source and class), and of the
        ``"unseen"`` source, with ``cluster``, the index of the seen source or -1.
    """
    sources = sorted(set(table["source"]) - {left_out})
    index = {name: i for i, name in enumerate(sources)}
    table = table.assign(cluster=[index.get(name, -1) for name in table["source"]])
    seen, unseen = table[table["cluster"] >= 0], table[table["cluster"] < 0]
    strata = seen["cluster"] * 2 + seen["label"]
    rest, test = train_test_split(np.arange(len(seen)), test_size=0.2, stratify=strata, random_state=seed)
    train, val = train_test_split(rest, test_size=0.25, stratify=strata.iloc[rest], random_state=seed)
    parts = {"train": seen.iloc[train], "val": seen.iloc[val], "test": seen.iloc[test], "unseen": unseen}
    return {name: part.reset_index(drop=True) for name, part in parts.items()}


def dermoscopy_partitions(
    folder: str | Path, left_out: str | None = None, seed: int = 0, trained: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """
    The same as a bundle has it.

    Args:
        folder: see :py:func:`read_dermoscopy`.
        left_out, seed: see :py:func:`leave_one_out`; None: no source is left out.
        trained: what a model was trained on, from :py:func:`monai_armed.data.held_out.provenance`: test images are then
            those of its sources that it was not trained on, and those of other sources are unseen.

    Returns:
        ``"train"``, ``"val"``, ``"test"`` and ``"unseen"``, data lists of ``image`` (path), ``label``, ``site``,
        ``cluster`` and ``subject``; ``"sites"``, the seen sources in the order of their index; and ``"study"``.
    """
    table = read_dermoscopy(folder)
    samples = _samples(table)
    study = study_name(samples)
    if trained is not None:
        parts, sites = held_out(samples, trained, study), list(trained["clusters"])
    else:
        parts = {name: _samples(part) for name, part in leave_one_out(table, left_out or "", seed).items()}
        sites = sorted(set(table["source"]) - {left_out})
    index = {name: i for i, name in enumerate(sites)}
    lists = {name: [{**item, "cluster": index.get(item["site"], -1)} for item in part] for name, part in parts.items()}
    return {**lists, "sites": sites, "study": study}


def _samples(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {"image": row.image, "label": np.float32([row.label]), "site": row.source, "subject": Path(row.image).stem}
        for row in table.itertuples()
    ]
