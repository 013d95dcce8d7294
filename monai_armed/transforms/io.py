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

"""Loading of volumes with errors that name the file."""

from __future__ import annotations

import errno
import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.data import ImageReader
from monai.transforms import LoadImaged

from monai_armed.data.volume_reader import HeaderError, VolumeReader

__all__ = ["LoadVolumeD", "LoadVolumeDict", "LoadVolumed"]

POINTERS = (b"/annex/objects/", b"../../.git/annex", b"version https://git-lfs")  # how files that point to one begin


class LoadVolumed(LoadImaged):
    """MONAI's ``LoadImaged`` with one clear sentence for a file that cannot be used.

    Takes the arguments of :class:`monai.transforms.LoadImaged`; NIfTI and FreeSurfer's files are read by
    :class:`monai_armed.data.volume_reader.VolumeReader`. Meant for images: a mask may rightly be constant.

    Raises:
        FileNotFoundError: when a file does not exist.
        ValueError: when a file cannot be read (such as a truncated one), its header does not say what has to be known,
            or it holds NaN or infinite values, is constant, or has no volume or more than one.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self._loader.auto_select:
            self._loader.register(VolumeReader())  # the last one that knows a file's ending reads it

    def __call__(self, data: Mapping[Hashable, Any], reader: ImageReader | None = None) -> dict[Hashable, Any]:
        """Load the files, see :class:`monai.transforms.LoadImaged`."""
        for key in self.key_iterator(data):
            _check_exists(Path(data[key]))
        try:
            loaded: dict[Hashable, Any] = super().__call__(data, reader)
        except (HeaderError, MemoryError):
            raise
        except Exception as error:  # every reader has its own errors, zlib's and struct's among them
            files = ", ".join(str(data[key]) for key in self.key_iterator(data))
            raise ValueError(f"image file {files} cannot be read{_reason(error, files)}.") from error
        for key in self.key_iterator(data):
            image = loaded[key]
            dims = image.ndim - bool(self._loader.ensure_channel_first)
            if dims < 3 or image.ndim > 4 or (image.ndim == 4 and image.shape[0] != 1):
                raise ValueError(
                    f"image file {data[key]} has the shape {tuple(image.shape)}: give one 3-D volume a file."
                )
            self._check_values(image, data[key])
        return loaded

    @staticmethod
    def _check_values(image: torch.Tensor, file: Any) -> None:
        bad = int((~torch.isfinite(image)).sum())
        if bad:
            raise ValueError(f"image file {file} has {bad} NaN or infinite values of {image.numel()}; replace it.")
        if image.min() == image.max():
            raise ValueError(f"image file {file} is constant (every value is {float(image.min()):g}); replace it.")


def _check_exists(file: Path) -> None:
    if file.is_file():
        return
    if file.is_dir():
        raise FileNotFoundError(f"image file {file} is a folder.")
    if file.is_symlink():
        raise FileNotFoundError(
            f"image file {file} is a link to {os.readlink(file)}, which does not exist: fetch it, such as by "
            "'datalad get' or 'git annex get'."
        )
    raise FileNotFoundError(f"image file {file} does not exist.")


def _reason(error: Exception, file: str) -> str:
    """Why a file cannot be read, and what to do."""
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM):
        return ": its permissions do not allow it"
    if Path(file).is_file():
        with open(file, "rb") as opened:
            if opened.read(100).startswith(POINTERS):
                return ": it only points to the image; fetch it, such as by 'git annex get' or 'git lfs pull'"
    reason = (str(error).splitlines() or [""])[0][:150]
    return f" ({type(error).__name__}: {reason}); it may be truncated: replace it"


LoadVolumeD = LoadVolumeDict = LoadVolumed
