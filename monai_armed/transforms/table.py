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

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform

__all__ = ["EncodeRow", "EncodeRowD", "EncodeRowDict", "EncodeRowd"]


class EncodeRow(Transform):
    """
    Turns a row of a table into the vector that a network takes: numbers are standardised, categories become 0/1 less
    their mean (one column for each of several categories, a single one for two), and what is missing becomes 0, the
    mean. Categories are not divided by their s.d., which would let rare ones count for most.

    Args:
        columns: a dict for each feature with its ``name``, the ``column`` of the table, the ``category`` (None for a
            number), ``mean`` and ``weight``, which the difference from the mean is multiplied with; of a category maybe
            ``known``, all values in training; :py:meth:`fit` makes them from training rows.

    Raises:
        ValueError: when they are no such dicts.

    Example:
        >>> encode = EncodeRow.fit([{"age": 70.0, "sex": "f"}, {"age": 80.0, "sex": "m"}], {"age": None, "sex": ["m"]})
        >>> encode({"age": 80.0, "sex": "f"})
        array([ 1. , -0.5], dtype=float32)
    """

    def __init__(self, columns: Sequence[Mapping[str, Any]]) -> None:
        needed = {"name", "column", "category", "mean", "weight"}
        if not columns or not all(isinstance(column, Mapping) and needed <= column.keys() for column in columns):
            raise ValueError(f"features must be a list of dicts with {', '.join(sorted(needed))}, got {columns!r:.60}.")
        self.columns = [dict(column) for column in columns]

    @classmethod
    def fit(cls, rows: Sequence[Mapping[str, Any]], features: Mapping[str, Sequence[str] | None]) -> EncodeRow:
        """
        Learn means and s.d. from rows, those of the training samples.

        Args:
            rows: dicts with a value for each column; missing ones are NaN or None.
            features: columns of the table; None for a number, else the categories that get a column of their own.

        Returns:
            the transform. A number that is constant or missing in all rows becomes 0, then and later.

        Raises:
            ValueError: when there are no rows.
        """
        if not rows:
            raise ValueError("there are no training rows to learn means and standard deviations from.")
        table = pd.DataFrame(list(rows), columns=list(features))
        columns: list[dict[str, Any]] = []
        for name, categories in features.items():
            if categories is None:
                values = table[name].astype(float)
                mean, scale = float(values.mean()), float(values.std(ddof=0))
                varies = scale > 1e-9 * max(1.0, abs(mean))  # False also for NaN: no value at all
                feature = {"name": name, "column": name, "category": None, "mean": mean if varies else 0.0}
                columns.append({**feature, "weight": 1 / scale if varies else 0.0})
                continue
            values = table[name].dropna()
            for category in categories:
                mean = float((values == category).mean()) if len(values) else 0.0
                feature = {"name": f"{name}={category}", "column": name, "category": category}
                known = sorted(map(str, values.unique()))
                columns.append({**feature, "mean": mean, "weight": 1.0, "known": known})
        return cls(columns)

    @property
    def names(self) -> list[str]:
        """Names of the features in their order."""
        return [column["name"] for column in self.columns]

    def save(self, path: str | Path) -> Path:
        """Write the columns as JSON, to be kept beside a model's weights."""
        Path(path).write_text(json.dumps(self.columns, indent=1), encoding="utf-8")
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> EncodeRow:
        """
        Read what :py:meth:`save` wrote.

        Raises:
            FileNotFoundError: when there is no such file.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(
                f"there is no {path} with the features of the model: is --ckpt_path right? It lies beside model.pt."
            )
        return cls(json.loads(Path(path).read_text(encoding="utf-8")))

    def __call__(self, data: Mapping[str, Any]) -> np.ndarray:
        """
        Args:
            data: value of each column.

        Returns:
            float32 vector of the features.

        Raises:
            ValueError: when the row lacks a column.
        """
        vector = np.zeros(len(self.columns), np.float32)
        for i, feature in enumerate(self.columns):
            if feature["column"] not in data:
                raise ValueError(f"a row lacks {feature['column']!r}, which the model was trained with.")
            value = data[feature["column"]]
            if pd.isna(value):
                continue
            number = value if feature["category"] is None else float(value == feature["category"])
            vector[i] = (number - feature["mean"]) * feature["weight"]
        return vector


class EncodeRowd(MapTransform):
    """
    Dictionary version of :py:class:`EncodeRow`.

    Args:
        keys: keys of the rows.
        encode: the transform.
    """

    def __init__(self, keys: KeysCollection, encode: EncodeRow) -> None:
        super().__init__(keys)
        self.encode = encode

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Args: data: dict whose rows are replaced by vectors."""
        return {**data, **{key: self.encode(data[key]) for key in self.key_iterator(dict(data))}}


EncodeRowD = EncodeRowDict = EncodeRowd
