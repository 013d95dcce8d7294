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

"""A box of a volume at a world coordinate, found by the volume's affine."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, SpatialResample, Transform

__all__ = ["WorldBox", "WorldBoxD", "WorldBoxDict", "WorldBoxd"]

DIRECTIONS = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}


class WorldBox(Transform):
    """Cut a box around a world coordinate out of a volume.

    The box is resampled by the volume's affine, so a volume of any orientation, voxel size or obliqueness gives the
    same box. World coordinates are MNI's where the volume is aligned with MNI. (MONAI's ``SpatialResampled`` takes its
    target from the sample, and not the number of voxels.)

    Args:
        centre: world coordinates (x, y, z) in mm of the middle of the box.
        size: voxels along each axis of the box.
        voxel_size: in mm, the same along all axes.
        axes: where the three axes of the box run to, as in NIfTI: ``"RAS"`` to the right, the front and the top.
        mode: interpolation, ``"bilinear"`` for images or ``"nearest"`` for masks.

    Raises:
        ValueError: when there are not three coordinates and three positive sizes, ``voxel_size`` is not positive, or
            ``axes`` are not three different ones.

    Example:
        >>> volume = MetaTensor(torch.rand(1, 91, 109, 91), affine=torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0])))
        >>> WorldBox(centre=(90.0, 110.0, 70.0), size=(49, 13, 41))(volume).shape
        torch.Size([1, 49, 13, 41])
    """

    def __init__(
        self,
        centre: Sequence[float],
        size: Sequence[int],
        voxel_size: float = 2.0,
        axes: str = "RAS",
        mode: str = "bilinear",
    ) -> None:
        if len(centre) != 3 or len(size) != 3 or min(size) <= 0 or voxel_size <= 0:
            raise ValueError(
                "a box needs three coordinates of its centre, three positive sizes and a positive voxel size, got "
                f"{list(centre)}, {list(size)} and {voxel_size}."
            )
        if sorted("RLAPSI".find(axis) // 2 for axis in axes) != [0, 1, 2]:
            raise ValueError(f"axes must be one each of R or L, A or P, and S or I, such as 'RAS', got {axes!r}.")
        self.size, self.mode = tuple(size), mode
        # arrays, not tensors: two tensors of the same numbers pickle differently, and a cache would not know the box
        self.centre = np.array(centre, dtype=float)
        self.affine = np.eye(4)
        self.affine[:3, :3] = voxel_size * np.array([DIRECTIONS[axis] for axis in axes], dtype=float).T
        self.affine[:3, 3] = self.centre - self.affine[:3, :3] @ ((np.array(self.size) - 1) / 2)
        self.resample = SpatialResample(mode=mode, padding_mode="zeros")

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Cut the box.

        Args:
            img: volume (C, X, Y, Z) with its affine.

        Returns:
            box (C, *size) with its affine; zeros where the volume does not reach.

        Raises:
            ValueError: when the input is no volume with an affine, or does not reach the middle of the box.
        """
        if not isinstance(img, MetaTensor) or img.ndim != 4:
            raise ValueError(
                f"{type(self).__name__} needs a MetaTensor (C, X, Y, Z), got {type(img).__name__} {tuple(img.shape)}."
            )
        self._check_reach(img)
        return self.resample(img, dst_affine=torch.from_numpy(self.affine), spatial_size=self.size)

    def _check_reach(self, img: MetaTensor) -> None:
        corners = torch.cartesian_prod(*(torch.tensor([-0.5, n - 0.5], dtype=torch.float64) for n in img.shape[1:]))
        affine = torch.as_tensor(img.affine, dtype=torch.float64)
        reach = corners @ affine[:3, :3].T + affine[:3, 3]
        low, high = reach.amin(dim=0), reach.amax(dim=0)
        for axis, middle, first, last in zip("xyz", self.centre.tolist(), low.tolist(), high.tolist()):
            if not first <= middle <= last:
                name = img.meta.get("filename_or_obj", "the volume")
                raise ValueError(
                    f"{name} covers {axis} = {first:.1f} to {last:.1f} mm and so does not reach {axis} = {middle:g} "
                    "mm: it ends before, or is not aligned with MNI space."
                )


class WorldBoxd(MapTransform):
    """Dictionary version of :class:`WorldBox`.

    Args:
        keys: keys of the volumes.
        centre: see :class:`WorldBox`.
        size: see :class:`WorldBox`.
        voxel_size: see :class:`WorldBox`.
        axes: see :class:`WorldBox`.
        mode: see :class:`WorldBox`.
        allow_missing_keys: do not raise when a key is missing.
    """

    def __init__(
        self,
        keys: KeysCollection,
        centre: Sequence[float],
        size: Sequence[int],
        voxel_size: float = 2.0,
        axes: str = "RAS",
        mode: str = "bilinear",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.box = WorldBox(centre, size, voxel_size, axes, mode)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Cut the box of each key, see :class:`WorldBox`."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.box(d[key])
        return d


WorldBoxD = WorldBoxDict = WorldBoxd
