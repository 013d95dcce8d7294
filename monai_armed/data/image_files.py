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
"""What an image file is: the one answer for all readers."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .volume_reader import VOLUME_ENDINGS

__all__ = ["MICROSCOPY", "VOLUMES", "distinct_scans", "ending", "is_image_file", "list_image_files"]

VOLUMES = tuple(name for name in VOLUME_ENDINGS if name != ".hdr")
"""Endings of volumes; the header of a pair is found by its image."""
MICROSCOPY = (".png", ".tif", ".tiff")
"""Endings of the images that the cell reader takes."""


def ending(path: str | os.PathLike[str], endings: Sequence[str]) -> str | None:
    """Which of some endings a file's name has, in whichever case; the longest, None if it has none."""
    name = os.path.basename(path).lower()
    return max((end for end in endings if name.endswith(end)), key=len, default=None)


def is_image_file(path: str | os.PathLike[str], endings: Sequence[str] = VOLUMES) -> bool:
    """
    Whether a path is an image: a file, not a folder of that name, with one of some endings, and not hidden as macOS
    hides what it keeps beside a file on other disks (``._name``). A link to a file that is not there is one that cannot
    be read.

    Args:
        path: the path.
        endings: of the names, in lower case; what comes after them (``.part``, ``.json``) makes it another file.
    """
    named = not os.path.basename(path).startswith(".") and ending(path, endings) is not None
    return named and os.path.lexists(path) and not os.path.isdir(path)


def list_image_files(
    folder: str | os.PathLike[str], endings: Sequence[str] = VOLUMES, below: bool = True, without: Sequence[str] = ()
) -> list[Path]:
    """
    The images in a folder, sorted.

    Args:
        folder: the folder.
        endings: of their names.
        below: whether to go into the folders in it, also by symbolic links, but not into hidden ones.
        without: names of folders that are not gone into.
    """
    found = _walk(Path(folder), set(without), set()) if below else Path(folder).iterdir()
    return sorted(path for path in found if is_image_file(path, endings))


def _walk(folder: Path, without: set[str], above: set[str]) -> Iterator[Path]:
    """All that is in a folder and below; a link to a folder above would go round for ever."""
    real = os.path.realpath(folder)
    if real in above:
        return
    for path in folder.iterdir():
        if not path.is_dir():
            yield path
        elif path.name not in without and not path.name.startswith("."):
            yield from _walk(path, without, above | {real})


def distinct_scans(files: Iterable[Path]) -> list[Path]:
    """
    Files of which none is another's scan: of one that is there as ``.nii`` and as ``.nii.gz`` the compressed file is
    kept, and a warning says so.

    Args:
        files: volumes.

    Returns:
        those that are kept, in the same order.
    """
    files = list(files)
    best: dict[str, Path] = {}
    for file in files:
        end = ending(file, (".nii", ".nii.gz"))
        stem = str(file)[: -len(end)] if end else str(file)
        if stem not in best or end == ".nii.gz":
            best[stem] = file
    kept = set(best.values())
    if left := [file for file in files if file not in kept]:
        warnings.warn(
            f"{len(left)} scans are there as .nii and as .nii.gz, of which the .nii.gz is taken (first left out: "
            f"{left[0]}): delete the one that is not wanted.",
            stacklevel=3,
        )
    return [file for file in files if file in kept]
