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

"""Rows of predictions that an interrupted ``inference`` has left, if the same would make them again."""

from __future__ import annotations

import os
from pathlib import Path

from monai_armed.bundle.fingerprint import fingerprint
from monai_armed.bundle.training_record import versions
from monai_armed.data.checksums import sha256
from monai_armed.data.kept_rows import KeptRows
from monai_armed.metrics.calibration_file import CALIBRATION

__all__ = ["kept_predictions"]


def kept_predictions(folder: str | os.PathLike[str], ckpt_path: str | os.PathLike[str]) -> KeptRows:
    """
    Args:
        folder: where the predictions of the run whose config is being read go.
        ckpt_path: the model's file.

    Returns:
        the rows of an interrupted run, which are taken over where settings, model, calibration and versions are the
        same.
    """
    files = {"model": Path(ckpt_path), "calibration": Path(ckpt_path).with_name(CALIBRATION)}
    hashes = {name: sha256(file) if file.is_file() else "" for name, file in files.items()}
    return KeptRows(folder, {**fingerprint({}, root="run"), **hashes, **versions()})
