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

"""Sums of all hospitals' features from which an eraser is fitted, and in which no cluster stands for itself."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..networks.erasure import ClusterEraser, FeatureSums
from ..networks.erasure.fit import Scatter, eraser_of, regress_out

__all__ = ["fit_added_up", "sums_to_add"]


def sums_to_add(sums: FeatureSums) -> dict[str, torch.Tensor]:
    """
    What a hospital adds: of its clusters nothing but sums over them.

    Args:
        sums: of its samples. Those of no known cluster are taken for a place of their own, as its others are.

    Returns:
        ``numbers`` (4,) of samples, cells (of a cluster and class), cells of both known, clusters; ``count`` (K,) and
        ``total`` (K, D + P) of the known ones by class; ``whole`` (D + P,) and ``second`` (D + P, D + P) of all;
        ``between`` (D + P, D + P), the sum over known cells of total x total / count; ``within`` the same of all cells,
        taken from ``second``.

    Raises:
        ValueError: when the features were not finite.
    """
    if not all(bool(tensor.isfinite().all()) for tensor in sums.state_dict().values()):
        raise ValueError("the sums of the features are not finite: did the training diverge?")
    count, total, known = sums.count, sums.total, slice(None, -1)
    if not (sums.num_classes or sums.num_values):
        count, total, known = count.sum(dim=1, keepdim=True), total.sum(dim=1, keepdim=True), slice(None)
    mean = total / count.clamp(min=1).unsqueeze(-1)
    known_count, known_total, known_mean = count[:-1, known], total[:-1, known], mean[:-1, known]
    cells = [int((part > 0).sum()) for part in (count, known_count, count[:-1].sum(dim=1))]
    return {
        "numbers": torch.tensor([float(count.sum()), *cells], dtype=torch.double),
        "count": known_count.sum(dim=0),
        "total": known_total.sum(dim=0),
        "whole": total.sum(dim=(0, 1)),
        "second": sums.second,
        "between": torch.einsum("ckd,cke->de", known_total, known_mean),
        "within": sums.second - torch.einsum("ckd,cke->de", total, mean),
    }


def fit_added_up(sums: Mapping[str, torch.Tensor], num_values: int = 0) -> ClusterEraser:
    """
    The eraser of the pooled data, to rounding: that of :py:func:`monai_armed.networks.erasure.fit_eraser` with
    ``keep_label=False``, which needs of the clusters' differences no more than their products.

    Args:
        sums: of :py:func:`sums_to_add`, added up over hospitals.
        num_values: of a label that is continuous.

    Returns:
        the eraser; of a single cluster one that does nothing.

    Raises:
        ValueError: when nothing is to be compared within a class.
    """
    samples, cells, known_cells, clusters = sums["numbers"].tolist()
    size = len(sums["whole"]) - num_values
    if clusters < 2:
        return ClusterEraser(size)
    count, total = sums["count"], sums["total"]
    pooled = torch.einsum("kd,ke->de", total, total / count.clamp(min=1).unsqueeze(-1))
    squared, axes = torch.linalg.eigh(sums["between"] - pooled)
    differences = (axes * squared.clamp(min=0).sqrt()).T  # others than the clusters', with the same products
    within = sums["within"]
    if num_values:
        differences, within = regress_out(differences, within, size)
    group_df = int(known_cells) - int((count > 0).sum())
    scatter = Scatter(differences, within, group_df, int(samples - cells) - num_values)
    return eraser_of(scatter, sums["whole"][:size] / samples, sums["second"][:size, :size] / samples, samples)
