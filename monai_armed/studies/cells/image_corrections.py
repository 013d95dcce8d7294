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

"""What microscopists do to a batch's images without any network, to compare a network with."""

from __future__ import annotations

import numpy as np
from monai.utils import optional_import
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

exposure, HAS_SKIMAGE = optional_import("skimage.exposure")

__all__ = ["ImageCorrections"]

_BACKGROUND = 0.2  # quantile over a batch's images that is taken for the background of a pixel


class ImageCorrections:
    """
    Ways to show an image as if from another batch, or without its batch, by what the training images of both are like:

    - ``"shift"``: less the mean image of its batch, plus that of the other;
    - ``"moments"``: mean and s.d. of all grey values of a batch, as Reinhard et al. 2001
      (https://doi.org/10.1109/38.946629) match colours;
    - ``"histogram"``: all grey values, by ``skimage.exposure.match_histograms``; where scikit-image is not installed
      the way is not there;
    - ``"flat_field"``: less the smoothed background of its batch, a low quantile of each pixel, plus that of the other.

    Without its batch is with the mean of all batches', or for the histogram that of all images.

    Args:
        images: training images (N, 1, H, W).
        cluster: index (N,) of their batch; each from 0 to the largest has images.
    """

    def __init__(self, images: NDArray[np.float32], cluster: NDArray[np.int_]) -> None:
        self.images, self.of_batch = images, [images[cluster == j] for j in range(int(cluster.max()) + 1)]
        self.ways = ("shift", "moments", "flat_field", *(["histogram"] if HAS_SKIMAGE else []))
        self._mean_image = [part.mean(axis=0) for part in self.of_batch] + [images.mean(axis=0)]
        mean, sd = ([f(part) for part in self.of_batch] for f in (np.mean, np.std))
        self._mean, self._sd = ([*values, m] for values, m in ((mean, np.mean(mean)), (sd, np.exp(np.log(sd).mean()))))
        size = images.shape[-1] / 8
        flat = [gaussian_filter(np.quantile(part, _BACKGROUND, axis=0), (0, size, size)) for part in self.of_batch]
        self._flat = [*flat, np.mean(flat, axis=0)]

    def __call__(self, way: str, images: NDArray[np.float32], own: NDArray[np.int_], target: int) -> NDArray:
        """
        Args:
            way: one of ``ways``.
            images: (M, 1, H, W).
            own: index (M,) of each image's batch.
            target: index of the batch to show them as; -1: without their batch.

        Returns:
            images (M, 1, H, W).

        Raises:
            ValueError: when there is no such way.
        """
        if way not in self.ways:
            raise ValueError(f"way must be one of {self.ways}, got {way!r}.")
        shown = np.empty(images.shape)
        for j in np.unique(own):
            shown[own == j] = getattr(self, f"_{way}")(images[own == j], int(j), target)
        return shown

    def _shift(self, images: NDArray, own: int, target: int) -> NDArray:
        return images - self._mean_image[own] + self._mean_image[target]

    def _moments(self, images: NDArray, own: int, target: int) -> NDArray:
        return (images - self._mean[own]) * (self._sd[target] / self._sd[own]) + self._mean[target]

    def _flat_field(self, images: NDArray, own: int, target: int) -> NDArray:
        return images - self._flat[own] + self._flat[target]

    def _histogram(self, images: NDArray, own: int, target: int) -> NDArray:
        reference = self.images if target < 0 else self.of_batch[target]
        together = np.concatenate([images, self.of_batch[own]])  # the batch's histogram, not the few images'
        return exposure.match_histograms(together, reference)[: len(images)]
