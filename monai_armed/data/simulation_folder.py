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
from pathlib import Path
from typing import Any

from .replaced_file import replaced_file

__all__ = ["claim_folder", "write_bytes"]


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file of a simulation in one step, so that what exists is whole."""
    with replaced_file(path) as file:
        file.write_bytes(content)


def claim_folder(folder: Path, marker: Path, parameters: dict[str, Any], called: str, foreign: str) -> None:
    """
    Mark a folder as that of a simulation, or see that it already is the one with these parameters.

    Args:
        folder: folder of the simulation.
        marker: file in it that holds the parameters.
        parameters: of this simulation.
        called: what the simulation is called in the error message.
        foreign: what the folder holds that no simulation wrote, if it has no marker; empty if it holds nothing.

    Raises:
        ValueError: when the folder holds something else, or a simulation with other parameters.
    """
    if marker.exists():
        found = json.loads(marker.read_text())
        if found != parameters:
            raise ValueError(
                f"{folder} holds {called} with the parameters {found}, not {parameters}; "
                "delete it or give another folder."
            )
        return
    if foreign:
        raise ValueError(f"{folder} holds {foreign} that this simulator did not write; give another folder.")
    write_bytes(marker, json.dumps(parameters, indent=2).encode())
