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
"""What a model was trained on, kept beside it, so that it is not evaluated on that."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_armed.data.replaced_file import replaced_file

__all__ = ["read_training", "record_training"]

FILE = "trained_on.json"


def record_training(
    partitions: Mapping[str, Any], ckpt_dir: str | Path, subject_key: str = "subject", sites_key: str = "sites"
) -> Path:
    """
    Write the study, the sites, and the subjects of training and validation as ``ckpt_dir/trained_on.json``.

    Args:
        partitions: ``"train"`` and ``"val"``, MONAI data lists, the names of the sites, and ``"study"``, which tells
            data whose subjects have the same names from one another.
        ckpt_dir: folder of the training.
        subject_key: key of the subject in the data lists.
        sites_key: key of the sites in ``partitions``.

    Returns:
        the file.
    """
    record = {
        "study": partitions["study"],
        "sites": list(partitions[sites_key]),
        "train": _subjects(partitions["train"], subject_key),
        "val": _subjects(partitions["val"], subject_key),
    }
    path = Path(ckpt_dir) / FILE
    with replaced_file(path) as file:
        file.write_text(json.dumps(record), encoding="utf-8")
    return path


def _subjects(datalist: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    return sorted({item[key] for item in datalist})


def read_training(ckpt_path: str | Path) -> dict[str, Any] | None:
    """
    What a model was trained on, as :py:func:`record_training` has written it.

    Args:
        ckpt_path: the finished model, a ``model.pt``.

    Returns:
        the record; None where there is none beside the model.
    """
    path = Path(ckpt_path).parent / FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
