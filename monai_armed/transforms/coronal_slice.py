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

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, SpatialResample, Transform

__all__ = ["CoronalSlice", "CoronalSliceD", "CoronalSliceDict", "CoronalSliced"]


class CoronalSlice(Transform):
    """Cut the coronal plane at a world y coordinate out of a volume, with a square field of view.

    The plane is resampled by the volume's affine, so a volume of any orientation, voxel size or obliqueness gives the
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
        if size <= 0 or pixel_size <= 0:
            raise ValueError(f"size and pixel_size must be positive, got {size} and {pixel_size}.")
        self.y, self.size, self.pixel_size, self.mode = y, size, pixel_size, mode
        half = (size - 1) / 2 * pixel_size
        x, z = centre
        # rows run from superior to inferior, columns from left to right, the third axis forwards
        self.affine = torch.tensor(
            [
                [0.0, pixel_size, 0.0, x - half],
                [0.0, 0.0, pixel_size, y],
                [-pixel_size, 0.0, 0.0, z + half],
                [0.0, 0.0, 0.0, 1.0],
            ],
            dtype=torch.float64,
        )
        self.resample = SpatialResample(mode=mode, padding_mode="zeros")

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Cut the slice.

        Args:
            img: volume (C, X, Y, Z) with its affine.

        Returns:
            slice (C, size, size), superior at the top and the left of the body at the left.

        Raises:
            ValueError: when the input is no volume with an affine, or does not reach the plane.
        """
        if not isinstance(img, MetaTensor) or img.ndim != 4:
            raise ValueError(
                f"CoronalSlice needs a MetaTensor (C, X, Y, Z), got {type(img).__name__} {tuple(img.shape)}."
            )
        self._check_reach(img)
        plane = self.resample(img, dst_affine=self.affine, spatial_size=(self.size, self.size, 1))
        return plane[..., 0]

    def pixel(self, point: Sequence[float]) -> tuple[float, float]:
        """Row and column at which the slice shows a point (3,) of its plane, in mm of the world."""
        row, column, _ = torch.linalg.solve(
            self.affine[:3, :3], torch.tensor(point, dtype=torch.float64) - self.affine[:3, 3]
        )
        return float(row), float(column)

    def _check_reach(self, img: MetaTensor) -> None:
        corners = torch.cartesian_prod(*(torch.tensor([-0.5, n - 0.5], dtype=torch.float64) for n in img.shape[1:]))
        affine = torch.as_tensor(img.affine, dtype=torch.float64)
        reach = corners @ affine[1, :3] + affine[1, 3]
        if not reach.min() <= self.y <= reach.max():
            name = img.meta.get("filename_or_obj", "the volume")
            raise ValueError(
                f"{name} covers y = {float(reach.min()):.1f} to {float(reach.max()):.1f} mm and so has no coronal "
                f"slice at y = {self.y:g} mm; is it aligned with MNI space?"
            )


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
