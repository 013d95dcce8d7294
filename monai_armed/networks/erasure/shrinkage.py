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

"""Covariances that can be inverted, also of more features than samples."""

from __future__ import annotations

import torch

__all__ = ["feature_scale", "shrunk_covariance"]


def feature_scale(variance: torch.Tensor) -> torch.Tensor:
    """The s.d. of features with variances (D,); of those that do not vary the largest, so that they stay nothing."""
    scale = variance.clamp(min=0).sqrt()
    return torch.where(scale > 1e-12 * scale.max(), scale, scale.max().clamp(min=1e-150))


def shrunk_covariance(covariance: torch.Tensor, samples: float) -> torch.Tensor:
    """
    A covariance shrunk towards its diagonal: oracle approximating shrinkage (Eq. 23 of Chen et al. 2010,
    https://doi.org/10.1109/TSP.2010.2053029) of the correlations, so that units of measurement make no difference.

    Args:
        covariance: (D, D) of the samples.
        samples: how many they are.

    Returns:
        (D, D), positive definite.
    """
    size, scale = len(covariance), feature_scale(covariance.diagonal())
    correlation = covariance / torch.outer(scale, scale)
    squares, trace = float(correlation.square().sum()), float(correlation.trace())
    excess = (samples + 1 - 2 / size) * (squares - trace**2 / size)
    share = min(1.0, ((1 - 2 / size) * squares + trace**2) / excess) if excess > 0 else 1.0
    shrunk = (1 - share) * correlation + share * torch.eye(size).to(correlation)
    return shrunk * torch.outer(scale, scale)
