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

"""The coronal slice of a volume at a world coordinate, found by the volume's affine."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from .world_box import WorldBox

__all__ = ["CoronalSlice", "CoronalSliceD", "CoronalSliceDict", "CoronalSliced"]


class CoronalSlice(WorldBox):
    """Cut the coronal plane at a world y coordinate out of a volume, with a square field of view.

    It is a :class:`WorldBox` of one voxel's thickness: a volume of any orientation, voxel size or obliqueness gives the
    same slice. World coordinates are MNI's where the volume is aligned with MNI, as in the paper's section 3.3.2.

    Args:
        y: world y coordinate of the plane in mm.
        size: height and width of the slice in pixels.
        pixel_size: in mm.
        centre: world x and z coordinates in mm of the middle of the slice.
        mode: interpolation, ``"bilinear"`` for images or ``"nearest"`` for masks.

    Raises:
        ValueError: when ``size`` or ``pixel_size`` is not positive.

    Example:
        >>> volume = MetaTensor(torch.rand(1, 91, 13, 91), affine=torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0])))
        >>> CoronalSlice(y=6.0)(volume).shape
        torch.Size([1, 96, 96])
    """

    def __init__(
        self,
        y: float = -6.0,
        size: int = 96,
        pixel_size: float = 2.0,
        centre: Sequence[float] = (0.0, 14.0),
        mode: str = "bilinear",
    ) -> None:
        x, z = centre
        # rows run from superior to inferior, columns from left to right, the third axis forwards
        super().__init__((x, y, z), (size, size, 1), pixel_size, "IRA", mode)

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Cut the slice.

        Args:
            img: volume (C, X, Y, Z) with its affine.

        Returns:
            slice (C, size, size), superior at the top and the left of the body at the left; zeros where the volume
            does not reach.

        Raises:
            ValueError: when the input is no volume with an affine, or does not reach the middle of the slice.
        """
        return super().__call__(img)[..., 0]

    def pixel(self, point: Sequence[float]) -> tuple[float, float]:
        """Row and column at which the slice shows a point (3,) of its plane, in mm of the world."""
        row, column, _ = np.linalg.solve(self.affine[:3, :3], np.array(point, dtype=float) - self.affine[:3, 3])
        return float(row), float(column)


class CoronalSliced(MapTransform):
    """Dictionary version of :class:`CoronalSlice`.

    Args:
        keys: keys of the volumes.
        y: see :class:`CoronalSlice`.
        size: see :class:`CoronalSlice`.
        pixel_size: see :class:`CoronalSlice`.
        centre: see :class:`CoronalSlice`.
        mode: see :class:`CoronalSlice`.
        allow_missing_keys: do not raise when a key is missing.
    """

    def __init__(
        self,
        keys: KeysCollection,
        y: float = -6.0,
        size: int = 96,
        pixel_size: float = 2.0,
        centre: Sequence[float] = (0.0, 14.0),
        mode: str = "bilinear",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.slicer = CoronalSlice(y, size, pixel_size, centre, mode)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Cut the slice of each key, see :class:`CoronalSlice`."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.slicer(d[key])
        return d


CoronalSliceD = CoronalSliceDict = CoronalSliced
