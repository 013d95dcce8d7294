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

"""Files of volumes by path alone, for prediction."""

from __future__ import annotations

import os
from pathlib import Path

from .image_files import distinct_scans, is_image_file, list_image_files

__all__ = ["list_images"]


def list_images(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """
    Args:
        path: a file of :py:data:`monai_armed.data.volume_reader.VOLUME_ENDINGS`, or a folder in which (and below which,
            links to folders followed) all of them are taken; masks and other derivatives of BIDS are left out.

    Returns:
        MONAI data list with ``image`` and ``file``, both the file's path.

    Raises:
        FileNotFoundError: when there is no such file or folder, or no such file in it.
        ValueError: when the file is no image by its name.
    """
    place = Path(path)
    if place.is_dir():
        files = distinct_scans(list_image_files(place, without=("derivatives",)))
    elif is_image_file(place):
        files = [place]
    elif place.is_file():
        raise ValueError(
            f"{place} is no NIfTI file (*.nii, *.nii.gz, *.img) and no *.mgz by its name: convert it, or rename it if "
            "it is one."
        )
    else:
        raise FileNotFoundError(
            f"there is no file or folder {place}: give the path of a NIfTI file or a folder of them."
        )
    if not files:
        raise FileNotFoundError(f"folder {place} holds no NIfTI file (*.nii, *.nii.gz, *.img) and no *.mgz.")
    return [{"image": str(f), "file": str(f)} for f in files]
