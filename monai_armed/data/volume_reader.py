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

"""Volumes as nibabel reads them, where their header says what has to be known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nibabel as nib
import numpy as np
from monai.config import PathLike
from monai.data import NibabelReader
from monai.data.utils import is_supported_format
from monai.utils import ensure_tuple

__all__ = ["VOLUME_ENDINGS", "HeaderError", "VolumeReader", "volume_stem"]

VOLUME_ENDINGS = (".nii.gz", ".nii", ".mgz", ".mgh", ".img", ".hdr")
"""How the names of the files end that are read; ``.img`` and ``.hdr`` are a pair."""

VOXEL_SIZES = (0.05, 20.0)  # mm; a header outside them is wrong, whatever was scanned
MILLIMETRES = {"meter": 1000.0, "micron": 0.001}


class HeaderError(ValueError):
    """The file can be read, but its header does not say what has to be known."""


class VolumeReader(NibabelReader):
    """
    MONAI's ``NibabelReader`` for NIfTI (also as ``.hdr`` with ``.img``) and FreeSurfer's ``.mgz``, with world
    coordinates in mm whatever the unit in the header, and without guesses: nibabel gives a file that does not know its
    orientation a usual one, which mirrors or shifts the volume if it is another.

    Raises:
        HeaderError: when a header does not tell how the axes run (``sform_code`` and ``qform_code`` are 0, or it is of
            the Analyze format), the voxels have no possible size, or they are not real numbers.
    """

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Whether nibabel reads files of this name."""
        return is_supported_format(filename, [ending[1:] for ending in VOLUME_ENDINGS])

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> Any:
        """
        The image or images, see :class:`monai.data.NibabelReader`; but where the sform and the voxel size in ``pixdim``
        differ, the sform counts, as NIfTI says. (MONAI takes the qform then, also one that is not set.)
        """
        self.filenames = ensure_tuple(data)
        images = [nib.load(name, **self.kwargs, **kwargs) for name in self.filenames]
        for image in images:
            _check(image)
        return images if len(images) > 1 else images[0]

    def _get_affine(self, img: nib.spatialimages.SpatialImage) -> np.ndarray:
        return _affine(img)


def _affine(image: nib.spatialimages.SpatialImage) -> np.ndarray:
    """From voxels to mm (4, 4)."""
    affine = np.array(image.affine, dtype=np.float64)
    affine[:3] *= MILLIMETRES.get(_unit(image), 1.0)
    return affine


def _check(image: Any) -> None:
    file = image.get_filename()
    if not isinstance(image, (nib.Nifti1Pair, nib.MGHImage)):
        raise HeaderError(
            f"image file {file} is of the {type(image).__name__.removesuffix('Image')} format, which does not tell "
            "left from right: convert it to NIfTI with a program that knows how it was written."
        )
    if isinstance(image, nib.Nifti1Pair) and image.header["sform_code"] == image.header["qform_code"] == 0:
        raise HeaderError(
            f"image file {file} does not know its orientation (sform_code and qform_code of its header are 0), so "
            "left and right cannot be told: convert it anew from DICOM, or write the right affine into it."
        )
    if image.get_data_dtype().kind not in "iufb":
        raise HeaderError(
            f"image file {file} holds {image.get_data_dtype()} values: give it one real number a voxel, such as "
            "the magnitude of complex ones."
        )
    _check_voxels(file, _affine(image), _unit(image))


def _check_voxels(file: str | None, affine: np.ndarray, unit: str) -> None:
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise HeaderError(
            f"image file {file} has an affine in its header that is no map of voxels into space "
            f"({np.round(affine[:3], 3).tolist()}): write the right one into it."
        )
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if sizes.min() < VOXEL_SIZES[0] or sizes.max() > VOXEL_SIZES[1]:
        told = "no unit" if unit == "unknown" else f"the unit {unit}"
        raise HeaderError(
            f"image file {file} has voxels of {' x '.join(f'{size:.3g}' for size in sizes)} mm by its header, "
            f"which gives {told}: that cannot be; put the unit or the voxel size right."
        )


def _unit(image: nib.spatialimages.SpatialImage) -> str:
    """``"meter"``, ``"mm"``, ``"micron"`` or ``"unknown"``; FreeSurfer's files are always in mm."""
    return image.header.get_xyzt_units()[0] if isinstance(image, nib.Nifti1Pair) else "mm"


def volume_stem(name: str) -> str:
    """A file's name without its ending, such as ``sub-1_T1w`` of ``sub-1_T1w.nii.gz``."""
    return next((name.removesuffix(ending) for ending in VOLUME_ENDINGS if name.endswith(ending)), name)
