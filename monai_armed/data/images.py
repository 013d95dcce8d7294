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


"""NIfTI files by path alone, for prediction."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["list_images"]


def list_images(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """
    Args:
        path: a NIfTI file, or a folder in which (and below which) all NIfTI files are taken; masks and other
            derivatives of BIDS are left out.

    Returns:
        MONAI data list with ``image`` and ``file``, both the file's path.

    Raises:
        FileNotFoundError: when there is no such file or folder, or no NIfTI file in it.
    """
    place = Path(path)
    if place.is_file():
        files = [place]
    elif place.is_dir():
        files = sorted(f for f in place.rglob("*.nii*") if "derivatives" not in f.relative_to(place).parts)
    else:
        raise FileNotFoundError(
            f"there is no file or folder {place}: give the path of a NIfTI file or a folder of them."
        )
    if not files:
        raise FileNotFoundError(f"folder {place} holds no NIfTI file (*.nii, *.nii.gz).")
    return [{"image": str(f), "file": str(f)} for f in files]
