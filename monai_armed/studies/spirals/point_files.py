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

"""Files of spiral points, read with a sentence for whatever is wrong in them."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

__all__ = ["read_arrays", "read_table"]

LEAST_POINTS = 20  # of a cluster: a tenth of them tests both classes


def read_arrays(path: str | Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """
    The arrays of a set of points with its truth.

    Args:
        path: ``.npz`` archive.
        names: ``x`` (N, F), ``y`` (N,), ``cluster`` (N,), and what has an entry for each cluster.

    Returns:
        the arrays by name; ``x`` in single precision, ``y`` and ``cluster`` as integers.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is no archive or damaged, lacks an array, or holds anything but finite points of two classes
            and of two clusters at least.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no spiral data at '{path}': simulate_spirals(...).save(path) writes such a file.")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"spiral data '{path}' is not an .npz archive.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in names if name not in archive]
            arrays = {name: archive[name] for name in names if name not in missing}
    except (ValueError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"spiral data '{path}' cannot be read ({str(error).splitlines()[0]}): it is damaged, or holds objects in "
            "place of numbers; write it anew."
        ) from error
    if missing:
        raise ValueError(f"spiral data '{path}' lacks the arrays {missing}, expected {list(names)}.")
    if wrong := _fault(arrays):
        raise ValueError(f"spiral data '{path}': {wrong}.")
    kinds = {"x": np.float32, "y": np.int64, "cluster": np.int64}
    return {name: array.astype(kinds.get(name, array.dtype), copy=False) for name, array in arrays.items()}


def _fault(arrays: dict[str, np.ndarray]) -> str:
    """What is wrong with the arrays; empty if nothing is."""
    x, y, cluster = arrays["x"], arrays["y"], arrays["cluster"]
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            return f"{name} holds {array.dtype}, not numbers"
        if not np.isfinite(array).all():
            return f"{name} has {int((~np.isfinite(array)).sum())} values that are NaN or infinite"
    if x.ndim != 2 or x.shape[1] < 2:
        return f"x must hold two features or more of each point, (N, F), got the shape {x.shape}"
    if not len(x):
        return "x holds no points"
    for name in ("y", "cluster"):
        if arrays[name].shape != x.shape[:1]:
            return f"{name} must have an entry for each of the {len(x)} points, got the shape {arrays[name].shape}"
        if (arrays[name] % 1 != 0).any():
            return f"{name} must hold whole numbers, got {arrays[name][arrays[name] % 1 != 0][0]:g}"
    if set(np.unique(y)) != {0, 1}:
        return f"y must hold the classes 0 and 1, both of them, got {np.unique(y)[:5].tolist()}"
    counts = pd.Series(cluster).value_counts()
    if len(counts) < 2:
        return f"all points are of the cluster {cluster[0]}: effects of the cluster need two at least"
    number = min(len(array) for name, array in arrays.items() if name not in ("x", "y", "cluster"))
    if not 0 <= cluster.min() <= cluster.max() < number:
        return f"cluster holds {cluster.min()} to {cluster.max()}, which must be 0 to {number - 1} for {number} radii"
    if counts.min() < LEAST_POINTS:
        return f"cluster {counts.idxmin()} has {counts.min()} points, {LEAST_POINTS} are needed to divide them"
    return ""


def read_table(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """
    Points to be classified.

    Args:
        path: CSV file with the columns x1, x2 (and x3, x4 for simulation 3) and, where it is known, cluster.

    Returns:
        features (N, F) in single precision, and cluster (N,), -1 where the cell is empty or there is no such column.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is no table, lacks x1 or x2, has no rows, or holds something that is not a number.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file of points '{path}': name a CSV file with the columns x1, x2 and cluster.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows that are longer than the head are cut
            table = pd.read_csv(path, encoding="utf-8-sig", index_col=False)
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"'{path}' is no CSV table in UTF-8: {str(error).splitlines()[0]}.") from error
    if not {"x1", "x2"} <= set(table):
        raise ValueError(f"'{path}' has the columns {list(table)[:9]}, but x1 and x2 are needed.")
    if table.empty:
        raise ValueError(f"'{path}' has no rows.")
    names = [name for name in ("x1", "x2", "x3", "x4") if name in table]
    try:
        with np.errstate(over="ignore"):  # what is beyond single precision is told below
            x = table[names].to_numpy(np.float32)
        cluster = table["cluster"].fillna(-1).to_numpy(float) if "cluster" in table else np.full(len(x), -1.0)
    except ValueError as error:
        raise ValueError(f"'{path}' holds something that is not a number: {error}.") from error
    if not np.isfinite(x).all():
        raise ValueError(f"'{path}' has empty or infinite cells in row {int(np.argwhere(~np.isfinite(x))[0, 0]) + 2}.")
    if (broken := ~np.isfinite(cluster) | (cluster % 1 != 0)).any():
        raise ValueError(f"'{path}' has the cluster {cluster[broken][0]:g}: clusters are whole numbers from 0 on.")
    return x, cluster.astype(np.int64)
