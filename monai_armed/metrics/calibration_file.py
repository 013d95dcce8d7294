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

"""A model's calibrations for new clusters, in a file that says which model they are of."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from monai_armed.data.checksums import sha256
from monai_armed.data.replaced_file import write_text
from monai_armed.metrics.calibration import Calibration

__all__ = ["CALIBRATION", "read_calibrations", "write_calibrations"]

CALIBRATION = "calibration.json"


def write_calibrations(
    calibrations: Mapping[str, Calibration], model: str | os.PathLike[str], folder: str | os.PathLike[str]
) -> Path:
    """
    Write a model's calibrations as ``calibration.json``.

    Args:
        calibrations: by name of the prediction, such as mixed and fixed.
        model: the model's file, whose SHA-256 is kept with them.
        folder: where to write to.

    Returns:
        the file.
    """
    content = {"model": sha256(model), "calibrations": {name: c.to_dict() for name, c in calibrations.items()}}
    return write_text(json.dumps(content, indent=4), Path(folder) / CALIBRATION)


def read_calibrations(model: str | os.PathLike[str]) -> dict[str, Calibration]:
    """
    The calibrations that lie beside a model.

    Args:
        model: the model's file.

    Returns:
        the calibrations by name of the prediction; none where there is no ``calibration.json`` beside the model.

    Raises:
        ValueError: when they are another model's, or damaged.
    """
    path = Path(model).with_name(CALIBRATION)
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        of_model = content["model"]
        found = {name: Calibration.from_dict(values) for name, values in content["calibrations"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}): evaluate {model} again, or remove the file.") from error
    if of_model != sha256(model):
        raise ValueError(
            f"{path} was made for another model than {model}: evaluate this model with its folder as output_dir, or "
            "remove the file."
        )
    return found
