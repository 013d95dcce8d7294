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

"""Ghosts: what a picture of a cell paints where the cell is not."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import binary_dilation

__all__ = ["ghost_energy"]


def ghost_energy(pictures: ArrayLike, truths: ArrayLike, masks: ArrayLike, margin: int = 2) -> float:
    """
    Mean square by which pictures depart from the truth outside the cell. Compare it with that of the real images, which
    is their noise: a picture that paints nothing of its own has no more.

    Args:
        pictures: (N, H, W), such as images as if from another batch.
        truths: (N, H, W), what they should show.
        masks: (N, H, W), True where the cell is, see :py:func:`monai_armed.studies.cells.cell_features.cell_mask`.
        margin: pixels around the mask that do not count: the cell's own edge and halo.

    Returns:
        the mean over the images, those without a pixel outside left out.

    Raises:
        ValueError: when the shapes differ, or no image has a pixel outside.
    """
    shown, true, mask = np.asarray(pictures, float), np.asarray(truths, float), np.asarray(masks, bool)
    if shown.ndim != 3 or shown.shape != true.shape or shown.shape != mask.shape:
        raise ValueError(
            f"pictures, truths and masks must be (N, H, W) alike, got {shown.shape}, {true.shape} and {mask.shape}."
        )
    wide = binary_dilation(mask, np.ones((1, 2 * margin + 1, 2 * margin + 1)))
    outside = ~wide
    kept = outside.any(axis=(1, 2))
    if not kept.any():
        raise ValueError("ghosts are looked for outside the cells, but the masks leave no pixel there.")
    squared = np.where(outside, np.square(shown - true), 0.0).sum(axis=(1, 2))
    return float((squared[kept] / outside.sum(axis=(1, 2))[kept]).mean())
