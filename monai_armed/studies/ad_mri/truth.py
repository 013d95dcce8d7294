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

"""What a simulated AD study knows of its images: the volumes and areas drawn, and the true regions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["ad_mri_truth", "read_truth", "with_true_regions"]


def read_truth(root: str | os.PathLike[str]) -> pd.DataFrame:
    """
    The table of a simulated study's truth, with what its ceilings are computed from.

    Args:
        root: the folder given to :py:func:`monai_armed.studies.ad_mri.simulator.simulate_ad_mri`.

    Returns:
        a row for each image: the columns of ``derivatives/truth/truth.tsv``, ``label`` (1: AD), and the logarithm of
        what the ventricles have: ``log_v``, ``log_ventricle_volume``, ``log_ventricle_area``.

    Raises:
        FileNotFoundError: when the folder holds no truth.
    """
    file = _file(root)
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: only a study that simulate_ad_mri has completed has a truth.")
    table = pd.read_csv(file, sep="\t", dtype={"site": str})
    return table.assign(
        label=(table["diagnosis"] == "AD").astype(int),
        log_v=np.log(table["v"]),
        log_ventricle_volume=np.log(table["lateral_ventricle_volume"] + 1.0),
        log_ventricle_area=np.log(table["lateral_ventricle_area"] + 1.0),
    )


def ad_mri_truth(datalist: Sequence[Mapping[str, Any]], root: str | os.PathLike[str]) -> pd.DataFrame | None:
    """
    The truth of the images of a data list.

    Args:
        datalist: items with ``"image"``, as :py:func:`monai_armed.studies.ad_mri.ad_mri_partitions` gives them.
        root: the study's folder.

    Returns:
        the rows of :py:func:`read_truth` in the order of the list; None where the data have no truth: not simulated.

    Raises:
        ValueError: when there is a truth, and an image is not among those that it is of.
    """
    if not _file(root).is_file():
        return None
    table = read_truth(root).set_index("image", drop=False)
    base, names = Path(root).resolve(), []
    for item in datalist:
        path = Path(item["image"]).resolve()
        names.append(path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path))
    if unknown := [name for name in names if name not in table.index]:
        raise ValueError(f"image {unknown[0]} is not in {_file(root)}, so its truth is not known: simulate it again.")
    return table.loc[names].reset_index(drop=True)


def with_true_regions(
    datalist: Sequence[Mapping[str, Any]], root: str | os.PathLike[str], key: str = "roi"
) -> list[dict[str, Any]]:
    """
    Add to each image of a simulated study the file with its true regions, those that the simulated disease changes:
    1 hippocampi with amygdalae, 2 lateral ventricles, in the slice at MNI y = -6 mm (or in the whole head, where whole
    heads were simulated).

    Args:
        datalist: items with ``"image"``, as :py:func:`monai_armed.studies.ad_mri.ad_mri_partitions` gives them.
        root: the study's folder.
        key: of the file in the items that are returned.

    Returns:
        a copy of the list; without the file where the data have no truth.

    Raises:
        ValueError: see :py:func:`ad_mri_truth`.
    """
    table = ad_mri_truth(datalist, root)
    if table is None:
        return [dict(item) for item in datalist]
    return [{**item, key: str(Path(root) / mask)} for item, mask in zip(datalist, table["mask"])]


def _file(root: str | os.PathLike[str]) -> Path:
    return Path(root) / "derivatives" / "truth" / "truth.tsv"
