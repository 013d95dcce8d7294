# Copyright (c) the monai_armed authors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and

"""The brain alone, by deepbet's network."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, cast

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import optional_import
from numpy.typing import NDArray

__all__ = ["SkullStrip", "SkullStripD", "SkullStripDict", "SkullStripd", "air_level"]


class SkullStrip(Transform):
    """Set everything but the brain to 0 in a T1-weighted head of any orientation, and count its values from the air's.

    The mask is that of `deepbet <https://github.com/wwu-mmll/deepbet>`_, whose weights come with its package; it holds
    the brain with the fluid in and around it. Its volume in ml is kept as ``meta["brain_volume"]``. What is taken off
    all values, so that an offset of the scan's intensities leaves no trace, is ``meta["air"]``; see :func:`air_level`.

    Raises:
        ImportError: when deepbet is not installed.
    """

    def __init__(self) -> None:
        network, found = optional_import("deepbet", name="BrainExtraction")
        if not found:
            raise ImportError('skull stripping needs the package deepbet: pip install "monai_armed[preprocess]".')
        self.network = network()

    def __call__(self, img: torch.Tensor) -> MetaTensor:
        """Strip the skull.

        Args:
            img: volume (1, X, Y, Z) with its affine.

        Returns:
            the brain, of the same shape and affine, values of 0 or more.

        Raises:
            ValueError: when the input is no such volume, or nothing like a brain is found in it.
        """
        if not isinstance(img, MetaTensor) or img.ndim != 4 or len(img) != 1 or min(img.shape[1:]) < 2:
            raise ValueError(f"SkullStrip needs one 3-D volume as a MetaTensor (1, X, Y, Z), got {tuple(img.shape)}.")
        volume = img.numpy()[0].astype(np.float32)
        try:
            _, mask, _ = self.network.run(nib.Nifti1Image(volume, np.asarray(img.affine)))
        except (AssertionError, ValueError) as error:  # how deepbet says that its mask is empty
            name = img.meta.get("filename_or_obj", "the volume")
            raise ValueError(f"no brain was found in {name}; is it a T1-weighted scan of a head?") from error
        inside = torch.from_numpy(np.asarray(mask.dataobj) > 0)[None].to(img.device)
        air = air_level(volume, inside.cpu().numpy()[0])
        brain = cast(MetaTensor, (img - air).clip(min=0) * inside)
        voxel = abs(float(torch.det(torch.as_tensor(img.affine, dtype=torch.float64)[:3, :3])))
        brain.meta["air"] = air
        brain.meta["brain_volume"] = int(inside.sum()) * voxel / 1000
        return brain


def air_level(volume: NDArray[np.float32], brain: NDArray[np.bool_]) -> float:
    """
    What a scan has where nothing is: the median of the voxels around the brain that are as dark as air can be, which
    is darker than nearly all of the brain, but by no more than the brain's own contrast. (Farther down are values that
    mark places without a measurement.) No more than the darkest of the brain, where the scan shows no air.

    Args:
        volume: the head (X, Y, Z).
        brain: where its brain is (X, Y, Z), somewhere at least.
    """
    darkest, dark, bright = np.quantile(volume[brain], [0.001, 0.02, 0.98])
    outside = volume[~brain]
    air = outside[(outside <= dark) & (outside >= 2 * dark - bright)]
    return float(min(darkest, np.median(air))) if len(air) else float(darkest)


class SkullStripd(MapTransform):
    """Dictionary version of :class:`SkullStrip`.

    Args:
        keys: keys of the volumes.
        allow_missing_keys: do not raise when a key is missing.
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.strip = SkullStrip()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Strip the skull of each key, see :class:`SkullStrip`."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.strip(d[key])
        return d


SkullStripD = SkullStripDict = SkullStripd
