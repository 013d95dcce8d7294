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

"""Reading FCON1000 thicknesses and ABIDE connectomes: features, a label, and the site of each person."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

__all__ = ["READERS", "Study", "read_abide", "read_fcon1000"]


class Study(NamedTuple):
    """Features (N, D), label (N,), a number or 0 and 1, and site (N,), an index into names."""

    name: str
    features: np.ndarray
    label: np.ndarray
    site: np.ndarray
    names: list[str]

    @property
    def is_class(self) -> bool:
        """Whether the label is a class, and not a number."""
        return set(np.unique(self.label)) <= {0, 1}


def read_fcon1000(path: str | Path) -> Study:
    """
    Age from cortical thickness and volumes.

    Args:
        path: ``thickness.csv`` or its folder: columns ``age`` and ``site``; all other numbers but ``sex`` are features.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when a column is missing.
    """
    table = pd.read_csv(_file(path, "thickness.csv"))
    if missing := {"age", "site"} - set(table):
        raise ValueError(f"{path} lacks the columns {sorted(missing)}, it has {list(table)[:5]} and so on.")
    table = table.dropna(subset=["age", "site"])
    features = table.drop(columns=["age", "site", "sex"], errors="ignore").select_dtypes("number")
    features = features.fillna(features.mean()).loc[:, features.std() > 1e-9]
    return _study("FCON1000", features.to_numpy(float), table["age"].to_numpy(float), table["site"])


def read_abide(path: str | Path) -> Study:
    """
    Autism from resting-state connectomes, whose correlations are Fisher transformed.

    Args:
        path: ``connectomes.npz`` or its folder: arrays ``correlation`` (N, D), ``site`` and ``asd``.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when an array is missing.
    """
    with np.load(_file(path, "connectomes.npz")) as file:
        if missing := {"correlation", "site", "asd"} - set(file):
            raise ValueError(f"{path} lacks the arrays {sorted(missing)}, it has {list(file)}.")
        z = np.arctanh(np.clip(file["correlation"].astype(np.float32), -0.99, 0.99)).astype(float)
        return _study("ABIDE", z, file["asd"].astype(int), pd.Series(file["site"]))


def _file(path: str | Path, name: str) -> Path:
    file = Path(path) / name if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no {file}: give the folder of {name}, or the file.")
    return file


def _study(name: str, features: np.ndarray, label: np.ndarray, site: pd.Series) -> Study:
    index, names = pd.factorize(site.astype(str), sort=True)
    return Study(name, features, label, index, list(names))


READERS = {"fcon1000": read_fcon1000, "abide": read_abide}
