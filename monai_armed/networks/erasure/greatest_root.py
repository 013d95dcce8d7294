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

"""How large the strongest of several differences between groups is by chance alone."""

from __future__ import annotations

import math

__all__ = ["greatest_root_edge"]

TRACY_WIDOM_95 = 0.9793  # 95th percentile of the Tracy-Widom law of order 1


def greatest_root_edge(num_features: int, error_df: int, group_df: int) -> float:
    """
    The value that the greatest root of B (B + W)^-1 stays below with 95 % probability where groups do not differ, with
    B and W the scatter between and within groups (Roy's test; Theorem 1 of Johnstone 2008,
    https://doi.org/10.1214/08-AOS605), whatever the features' mean and covariance. It holds for normal features, and
    nearly for others as long as small groups do not go with heavy tails.

    Args:
        num_features: number of features p.
        error_df: degrees of freedom of W, at least p.
        group_df: degrees of freedom of B.

    Returns:
        a number between 0 and 1.

    Raises:
        ValueError: when a number is not positive, or the features are more than the degrees of freedom of W.
    """
    if group_df < 1 or not 1 <= num_features <= error_df:
        raise ValueError(
            "Roy's test needs num_features from 1 to error_df and group_df of at least 1, got "
            f"num_features = {num_features}, error_df = {error_df}, group_df = {group_df}."
        )
    both = error_df + group_df - 1
    small = 2 * math.asin(math.sqrt((min(num_features, group_df) - 0.5) / both))
    large = 2 * math.asin(math.sqrt((max(num_features, group_df) - 0.5) / both))
    centre = 2 * math.log(math.tan((large + small) / 2))
    scale = (16 / both**2 / (math.sin(large + small) ** 2 * math.sin(large) * math.sin(small))) ** (1 / 3)
    return 1 / (1 + math.exp(-centre - scale * TRACY_WIDOM_95))
