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

"""
A model in one file: a plain state dict for every tool of PyTorch and MONAI, and in it the record of its training and
the distance to its data.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monai_armed.data.replaced_file import replaced_file
from monai_armed.networks.training_distance import TrainingDistance

__all__ = ["RECORD", "add_record", "read_distance", "read_record", "write_model"]

RECORD = "monai_armed.json"
"""Member of the model's zip archive, beside those that PyTorch reads, which leaves others alone."""

DISTANCE = "monai_armed_distance.npz"
"""The same, with the arrays of a :py:class:`monai_armed.networks.training_distance.TrainingDistance`."""


def write_model(
    state: Mapping[str, torch.Tensor],
    record: Mapping[str, Any],
    path: str | os.PathLike[str],
    distance: TrainingDistance | None = None,
) -> Path:
    """
    Write a state dict and its record, both in one step: what exists is whole, and never of two trainings.

    Args:
        state: the state dict.
        record: what the model was trained on and its clusters' names, as JSON can hold it.
        path: the file.
        distance: to the data that the model was trained on, if it is known.

    Returns:
        the file.

    Raises:
        ValueError: when a weight is NaN or infinite.
    """
    wrong = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if wrong:
        raise ValueError(f"{wrong[0]} holds NaN or infinite values: a diverged network is no model, it is not written.")
    buffer = io.BytesIO()  # torch.save to a full disk ends the whole program
    torch.save({name: value.detach().cpu() for name, value in state.items()}, buffer)
    return _write(add_distance(add_record(buffer.getvalue(), record), distance), Path(path))


def add_record(model: bytes, record: Mapping[str, Any]) -> bytes:
    """
    Add a record to a model's file, whose weights stay as they are.

    Args:
        model: content of a file that ``torch.save`` has written.
        record: the record.

    Returns:
        content of the file with the record.
    """
    return _with_member(model, RECORD, json.dumps(record, allow_nan=False))


def _with_member(model: bytes, name: str, content: str | bytes) -> bytes:
    buffer = io.BytesIO(model)
    with zipfile.ZipFile(buffer, "a") as archive:
        member = zipfile.ZipInfo(f"{archive.namelist()[0].split('/')[0]}/{name}")  # of 1980: same bytes each time
        archive.writestr(member, content)
    return buffer.getvalue()


def add_distance(model: bytes, distance: TrainingDistance | None) -> bytes:
    """The same for the distance to the data that the model was trained on; without one the content as it is."""
    if distance is None:
        return model
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {name: value.numpy() for name, value in distance.state_dict().items()}
    np.savez(buffer, **arrays)
    return _with_member(model, DISTANCE, buffer.getvalue())


def read_distance(path: str | os.PathLike[str]) -> TrainingDistance | None:
    """
    The distance to the data that a model was trained on.

    Args:
        path: the file, a ``model.pt``.

    Returns:
        the distance; None for a model that has none, as one of an earlier version.

    Raises:
        ValueError: when the file is damaged.
    """
    try:
        if not zipfile.is_zipfile(path):
            return None  # of a PyTorch before 1.6
        content = _member(path, DISTANCE)
        if content is None:
            return None
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return TrainingDistance.from_state_dict({name: torch.from_numpy(arrays[name]) for name in arrays})
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, EOFError) as error:
        raise ValueError(f"model {path} cannot be read ({error}): it is damaged, copy or train it again.") from error


def _member(path: str | os.PathLike[str], name: str) -> bytes | None:
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.namelist() if member.rpartition("/")[2] == name]
        return archive.read(members[0]) if members else None


def _write(content: bytes, path: Path) -> Path:
    with replaced_file(path) as partial, open(partial, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return path


def read_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """
    The record in a model's file.

    Args:
        path: the file, a ``model.pt`` that one of our bundles has written.

    Returns:
        the record.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is damaged, has no record, or one that contradicts itself.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"there is no model {path}: train first, or give the path of a model.pt as --ckpt_path."
        )
    try:
        content = _member(path, RECORD)
        record = None if content is None else json.loads(content)
    except (OSError, zipfile.BadZipFile, json.JSONDecodeError) as error:
        raise ValueError(f"model {path} cannot be read ({error}): it is damaged, copy or train it again.") from error
    if not isinstance(record, dict):
        raise ValueError(
            f"model {path} has weights, but no record of what it was trained on, which is lost when another program "
            "saves it anew: give the model.pt that training wrote."
        )
    if wrong := _contradiction(record):
        raise ValueError(f"the record in model {path} {wrong}: it is damaged, copy or train the model again.")
    return record


def _contradiction(record: Mapping[str, Any]) -> str:
    """What a record lacks or contradicts itself in; empty where it is one."""
    if lacking := [key for key in ("provenance", "clusters", "features") if key not in record]:
        return f"lacks {' and '.join(lacking)}"
    clusters, origin = record["clusters"], record["provenance"]
    if not isinstance(origin, dict) or not isinstance(clusters, list):
        return "has no list of clusters, or no dict as provenance"
    if [str(name) for name in origin.get("clusters", [])] != [str(name) for name in clusters]:
        return "has other clusters than its provenance"
    return ""
