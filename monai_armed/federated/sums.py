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

"""Sums of several hospitals' features, as if one had them all."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..networks.erasure import FeatureSums

__all__ = ["join_sums"]


def join_sums(parts: Sequence[FeatureSums]) -> FeatureSums:
    """
    Sums of hospitals each of which has clusters of its own. The eraser that is fitted to them is that of the pooled
    data, to rounding.

    Args:
        parts: of the same features and labels.

    Returns:
        the sums of all; the clusters are numbered through in the order of the hospitals.

    Raises:
        ValueError: when there are none, or they are of other features or labels.
    """
    if not parts:
        raise ValueError("there are no sums to fit an eraser to: no hospital has answered.")
    first = parts[0]
    sizes = [(part.num_features, part.num_classes, part.num_values) for part in parts]
    if len(set(sizes)) > 1:
        raise ValueError(f"sums of (features, classes, values) {sorted(set(sizes))} are of different networks.")
    clusters = sum(part.num_clusters for part in parts)
    joined = FeatureSums(first.num_features, clusters, first.num_classes, first.num_values)
    tables = ((joined.count, [part.count for part in parts]), (joined.total, [part.total for part in parts]))
    for whole, tables_of in tables:
        whole[:-1] = torch.cat([table[:-1] for table in tables_of])
        whole[-1] = torch.stack([table[-1] for table in tables_of]).sum(dim=0)  # clusters that are not known
    joined.second += torch.stack([part.second for part in parts]).sum(dim=0)
    return joined
