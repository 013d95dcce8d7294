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

"""Random transforms that make an image look as if another scanner had taken it."""

from __future__ import annotations

from monai.transforms import (
    Compose,
    RandAdjustContrastd,
    RandBiasFieldd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandHistogramShiftd,
    ScaleIntensityRangePercentilesd,
)

__all__ = ["scanner_augmentation"]


def scanner_augmentation(keys: str, lower: float = 2.0, upper: float = 98.0) -> Compose:
    """
    What differs between scanners, at random, of MONAI's transforms: contrast (histogram shift, gamma), the bias field
    of the receive coil, sharpness and noise. Then two percentiles are scaled to 0 and 1, as in the preprocessing.

    Args:
        keys: key of the image, whose values are from 0 to 1, nearly.
        lower, upper: percentiles.

    Example:
        >>> Compose([..., scanner_augmentation("image")])
    """
    return Compose(
        [
            RandHistogramShiftd(keys, num_control_points=(4, 8), prob=0.8),
            RandAdjustContrastd(keys, gamma=(0.6, 1.6), prob=0.8),
            RandBiasFieldd(keys, degree=3, coeff_range=(-0.3, 0.3), prob=0.8),
            RandGaussianSmoothd(keys, sigma_x=(0.2, 1.0), sigma_y=(0.2, 1.0), prob=0.5),
            RandGaussianNoised(keys, std=0.05, prob=0.5),
            ScaleIntensityRangePercentilesd(keys, lower=lower, upper=upper, b_min=0.0, b_max=1.0),
        ]
    )
