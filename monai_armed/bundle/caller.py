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

"""Which bundle is being run: MONAI tells a config neither its folder nor its parser, a caller holds them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow

__all__ = ["bundle_root", "calling_parser", "calling_workflow", "command_argument", "config_files", "find_bundle"]


def bundle_root() -> str:
    """
    Folder of the bundle whose config is being read: of MONAI's workflow, wherever it was started and whatever it was
    started by; of the config file that one of MONAI's commands, such as ``ckpt_export``, was given; else the first
    folder in ``sys.path`` with a ``configs/metadata.json``; else the current folder.
    """
    workflow = calling_workflow()
    configs = [Path(workflow.config_root_path)] if workflow is not None else [file.parent for file in config_files()]
    places = [*(folder.parent for folder in map(Path.resolve, configs)), *map(Path, filter(None, sys.path))]
    for place in places:
        if (place / "configs" / "metadata.json").is_file():
            return str(place.resolve())
    return os.getcwd()


def find_bundle(name: str) -> Path:
    """
    Folder of one of this project's bundles, in a clone or as installed.

    Raises:
        FileNotFoundError: when there is none of that name.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent / "bundles" / name, package / "bundles" / name):
        if (folder / "configs" / "metadata.json").is_file():
            return folder
    raise FileNotFoundError(f"there is no bundle {name!r} beside or in {package}.")


def calling_parser() -> ConfigParser | None:
    """The parser that is reading a config; None where nobody is."""
    for frame in _callers():
        if isinstance(parser := frame.f_locals.get("self"), ConfigParser):
            return parser
    return None


def calling_workflow() -> ConfigWorkflow | None:
    """The workflow of the config that is being read: one of its methods calls, or a caller holds it in a variable."""
    parser = calling_parser()
    for frame in _callers():
        for value in list(frame.f_locals.values()):
            if issubclass(type(value), ConfigWorkflow) and (parser is None or value.parser is parser):
                return value
    return None


def config_files() -> list[Path]:
    """The config files that MONAI's command was given; none where a workflow was made otherwise."""
    given = command_argument("config_file_") or command_argument("config_file") or []
    return [Path(file) for file in ([given] if isinstance(given, (str, os.PathLike)) else given)]


def command_argument(name: str) -> Any:
    """What MONAI's command was given for an argument of this name; None where it was given nothing."""
    for frame in _callers():
        if frame.f_globals.get("__name__") == "monai.bundle.scripts" and frame.f_locals.get(name) is not None:
            return frame.f_locals[name]
    return None


def _callers() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back
