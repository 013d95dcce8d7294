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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_armed.data.held_out import provenance
from monai_armed.data.replaced_file import replaced_file

__all__ = ["read_training", "record_training"]

FILE = "trained_on.json"


def record_training(
    partitions: Mapping[str, Any], ckpt_dir: str | Path, subject_key: str | None = None, sites_key: str | None = None
) -> Path:
    """
    Write the :py:func:`monai_armed.data.held_out.provenance` of a training as ``ckpt_dir/trained_on.json``.

    Args:
        partitions: of the training.
        ckpt_dir: folder of the training.
        subject_key: key of the subject in the data lists, by default that of ``partitions["keys"]``.
        sites_key: key of the sites in ``partitions``, likewise.

    Returns:
        the file.
    """
    said = {"subject": subject_key, "clusters": sites_key}
    keys = {**partitions.get("keys", {}), **{name: key for name, key in said.items() if key is not None}}
    path = Path(ckpt_dir) / FILE
    with replaced_file(path) as file:
        file.write_text(json.dumps(provenance({**partitions, "keys": keys})), encoding="utf-8")
    return path


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
