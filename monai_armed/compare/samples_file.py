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

"""The samples of a comparison in a JSON file that its processes share; unlike a pickle, reading it runs nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from monai_armed.data.replaced_file import replaced_file

__all__ = ["read_samples", "write_samples"]

ARRAY = "__array__"  # key of the type of a NumPy array or number; beside it "shape" and "values"


def write_samples(partitions: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """
    Write a bundle's partitions, unless the file holds the very same already.

    Args:
        partitions: data lists, whose samples hold text, numbers, NumPy arrays and lists or dicts of these; and what
            else the bundle keeps beside them. Of that, objects that no JSON file holds, such as a simulator's truth,
            are left out: they are for who draws the data, not for the folds.
        path: the file.

    Returns:
        the file.

    Raises:
        ValueError: when a sample holds anything else; names it.
    """
    path, plain = Path(path), {}
    for name, value in partitions.items():
        try:
            plain[name] = _plain(value, f"partitions[{name!r}]")
        except ValueError:
            if isinstance(value, list):
                raise
    written = json.dumps(plain).encode()
    if not path.is_file() or path.read_bytes() != written:
        with replaced_file(path) as partial:
            partial.write_bytes(written)
    return path


def read_samples(path: str | os.PathLike[str]) -> dict[str, Any]:
    """
    What :py:func:`write_samples` has written; numbers and arrays are the same to the last bit.

    Raises:
        ValueError: when the file is damaged.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"), object_hook=_restored)
    except ValueError as error:
        raise ValueError(
            f"file of samples {path} is damaged ({error}): remove it and run the comparison again."
        ) from None


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        if value.dtype.kind not in "biufU":
            raise ValueError(f"{where} is an array of {value.dtype}: samples hold arrays of numbers or text.")
        return {ARRAY: value.dtype.str, "shape": value.shape, "values": value.ravel().tolist()}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    kind = "dict with keys that are no text" if isinstance(value, Mapping) else type(value).__name__
    raise ValueError(f"{where} is a {kind}: samples hold text, numbers, NumPy arrays, and lists or dicts of these.")


def _restored(entry: dict[str, Any]) -> Any:
    if ARRAY not in entry:
        return entry
    array = np.array(entry["values"], np.dtype(entry[ARRAY])).reshape(entry["shape"])
    return array if entry["shape"] else array[()]
