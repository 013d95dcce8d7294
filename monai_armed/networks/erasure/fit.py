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

"""Fitting an eraser to sums of features."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch

from .eraser import ClusterEraser
from .feature_sums import FeatureSums
from .greatest_root import greatest_root_edge
from .shrinkage import feature_scale, shrunk_covariance

__all__ = ["Scatter", "eraser_of", "fit_eraser", "regress_out"]

# The largest squared canonical correlation between what is erased and the covariance to be kept: beyond it, keeping
# would stretch what lies between them by more than three.
MOST_SHARED = 0.9


class Scatter(NamedTuple):
    """How clusters differ, given the label: rows of differences (G, D), scatter around them, degrees of freedom."""

    differences: torch.Tensor
    within: torch.Tensor
    group_df: int
    error_df: int


def fit_eraser(
    sums: FeatureSums, within_label: bool = True, keep_label: bool = True, above_noise: bool = True
) -> ClusterEraser:
    """
    The least affine change of features after which the clusters' means do not differ (LEACE, theorem 4.2 of Belrose et
    al. 2023, https://arxiv.org/abs/2306.03819), so that no linear classifier names the cluster: where a linear
    adversary would end, without a game.

    Sites that differ in their share of patients, or in age, rightly differ in features that tell these. By default only
    what differs beside that is erased: between clusters within each class, or what is left when a continuous label is
    regressed out. (Classes given to :py:class:`FeatureSums` as continuous columns, one a class, are regressed out
    likewise: then what all of them share is erased.) And the covariance with the label within clusters is kept, which
    makes the change an oblique one (SPLINCE, https://arxiv.org/abs/2506.10703).

    "Least" is measured by the features' covariance, shrunk towards its diagonal (OAS, Chen et al. 2010,
    https://doi.org/10.1109/TSP.2010.2053029): with many features and few samples the change would else run along
    directions that hardly vary in these samples and do in others. What is erased is erased exactly all the same.

    Args:
        sums: of the features that the eraser is for.
        within_label: if False, all differences between the clusters' means are erased, also what the label makes.
        keep_label: if False, the covariance with the label may change.
        above_noise: if False, differences are also erased that chance makes: a direction counts when it is longer
            than the longest is in 95 of 100 sets of samples without any, see
            :py:func:`~monai_armed.networks.erasure.greatest_root.greatest_root_edge`.

    Returns:
        the map in double precision, its ``rank`` the number of directions erased, at most half of the features.

    Raises:
        ValueError: when there are no two known clusters (within the label) to compare, or features were not finite.
    """
    if not all(bool(tensor.isfinite().all()) for tensor in sums.state_dict().values()):
        raise ValueError("the sums of the features are not finite: did the training diverge?")
    if int((sums.count[:-1].sum(dim=1) > 0).sum()) < 2:
        raise ValueError("erasing what tells the clusters needs samples of at least two known clusters.")
    scatter = _scatter(sums, within_label and bool(sums.num_classes or sums.num_values))
    size, samples = sums.num_features, float(sums.count.sum())
    mean = sums.total[..., :size].sum(dim=(0, 1)) / samples
    kept = _label_covariance(sums) if keep_label else None
    return eraser_of(scatter, mean, sums.second[:size, :size] / samples, samples, kept, above_noise)


def eraser_of(
    scatter: Scatter,
    mean: torch.Tensor,
    moment: torch.Tensor,
    samples: float,
    kept: torch.Tensor | None = None,
    above_noise: bool = True,
) -> ClusterEraser:
    """
    The same, where sums are at hand in which clusters do not stand each for itself.

    Args:
        scatter: of the features between and within clusters.
        mean: of the features (D,).
        moment: mean of the features' products (D, D).
        samples: how many these are of.
        kept: columns (D, R) that span the covariance that is to be kept; None: it may change.
        above_noise: see :py:func:`fit_eraser`.

    Raises:
        ValueError: when nothing is to be compared within a class.
    """
    if scatter.group_df < 1:
        raise ValueError(
            "no class has samples of two clusters, so that nothing is to be compared within it: give more samples, or "
            "erase with within_label=False."
        )
    directions = _directions(scatter, above_noise)
    size, found = len(mean), directions.shape[1]
    if found > size // 2:
        warnings.warn(
            f"{found} directions tell the clusters apart; erased are the strongest {size // 2}, half of the {size} "
            "features, and the rest may still tell them: a wider layer has room for all.",
            stacklevel=3,
        )
        directions = directions[:, : size // 2]
    matrix = torch.eye(size).to(scatter.within)
    if directions.shape[1]:
        covariance = shrunk_covariance(moment - torch.outer(mean, mean), samples)
        matrix = _least_change(directions, directions[:, :0] if kept is None else kept, covariance)
    eraser = ClusterEraser(size).to(matrix)
    eraser.matrix.copy_(matrix)
    eraser.offset.copy_(mean - mean @ matrix)
    eraser.rank.fill_(directions.shape[1])
    return eraser


def _scatter(sums: FeatureSums, given_label: bool) -> Scatter:
    size, count, total = sums.num_features, sums.count, sums.total
    if not given_label:
        count, total = count.sum(dim=1, keepdim=True), total[..., :size].sum(dim=1, keepdim=True)
    mean = total / count.clamp(min=1).unsqueeze(-1)
    columns = total.shape[-1]
    within = sums.second[:columns, :columns] - torch.einsum("ckd,cke->de", total, mean)
    # the last row and, of labels, the last column are of samples not known, which scatter but show no differences
    known = slice(None, -1 if given_label else None)
    count_known, mean_known = count[:-1, known], mean[:-1, known]
    pooled = total[:-1, known].sum(dim=0) / count_known.sum(dim=0).clamp(min=1).unsqueeze(-1)
    differences = (mean_known - pooled).mul(count_known.sqrt().unsqueeze(-1)).flatten(0, 1)
    group_df = int((count_known > 0).sum()) - int((count_known.sum(dim=0) > 0).sum())
    error_df = int(count.sum()) - int((count > 0).sum()) - (columns - size)
    if columns > size:
        differences, within = regress_out(differences, within, size)
    return Scatter(differences, within, group_df, error_df)


def regress_out(differences: torch.Tensor, within: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The features' part of both, given the columns after them, as in an analysis of covariance."""
    of_x, of_y = differences[:, :size], differences[:, size:]
    cross, values = within[:size, size:], within[size:, size:]
    slopes = torch.linalg.pinv(values, hermitian=True) @ cross.T
    adjusted = of_x - of_y @ slopes
    # of a difference in the direction in which the clusters' labels differ less is known: its scatter is smaller
    roots, axes = torch.linalg.eigh(values + of_y.T @ of_y)
    known = roots > 1e-12 * roots.max().clamp(min=1e-300)
    span, strength, _ = torch.linalg.svd(of_y @ (axes[:, known] * roots[known].rsqrt()), full_matrices=False)
    lost = 1 - (1 - strength.square()).clamp(min=0).sqrt()
    return adjusted - (span * lost) @ (span.T @ adjusted), within[:size, :size] - cross @ slopes


def _directions(scatter: Scatter, above_noise: bool) -> torch.Tensor:
    """Columns (D, R) that span the differences, the strongest first."""
    scattered = scatter.within + scatter.differences.T @ scatter.differences
    unit = feature_scale(scattered.diagonal())
    differences = scatter.differences / unit
    if not above_noise:
        axes, strength, _ = torch.linalg.svd(differences.T, full_matrices=False)
        found = min(int((strength > 1e-12 * strength.max()).sum()), scatter.group_df)
        return axes[:, :found] * unit.unsqueeze(-1)
    # Roots are looked for among the principal components of both scatters together, which say nothing of the roots
    # where there are no differences, so many that the scatter within clusters is known well.
    variance, axes = torch.linalg.eigh(scattered / torch.outer(unit, unit))
    size = min(int((variance > 1e-11 * variance.max()).sum()), scatter.error_df // 2)
    variance, axes = variance.flip(0)[: max(size, 0)], axes.flip(1)[:, : max(size, 0)]
    combinations, strength, _ = torch.linalg.svd(differences @ (axes * variance.rsqrt()), full_matrices=False)
    found = 0
    for root in strength.square()[: min(size, scatter.group_df)].tolist():
        if root < greatest_root_edge(size - found, scatter.error_df, scatter.group_df - found):
            break
        found += 1
    return scatter.differences.T @ combinations[:, :found]  # whole, also outside of those components


def _label_covariance(sums: FeatureSums) -> torch.Tensor:
    """Columns (D, K or P) that span the covariance with the label within clusters."""
    size, count, total = sums.num_features, sums.count[:-1, :-1], sums.total[:-1, :-1]
    mean = total / count.clamp(min=1).unsqueeze(-1)
    if sums.num_values:
        every = sums.total / sums.count.clamp(min=1).unsqueeze(-1)
        return (sums.second - torch.einsum("ckd,cke->de", sums.total, every))[:size, size:]
    of_cluster = total.sum(dim=1) / count.sum(dim=1).clamp(min=1).unsqueeze(-1)
    return (count.unsqueeze(-1) * (mean - of_cluster.unsqueeze(1))).sum(dim=0).T


def _least_change(directions: torch.Tensor, kept: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    """(D, D), multiplied with from the right: the directions become zero, the kept ones stay, the rest hardly moves."""
    root = torch.linalg.cholesky(covariance)
    erased, kept = (_span(torch.linalg.solve_triangular(root, part, upper=False)) for part in (directions, kept))
    shared = kept.T @ erased
    told = erased
    if shared.numel() and float(torch.linalg.matrix_norm(shared, 2)) ** 2 > MOST_SHARED:
        warnings.warn(
            "the clusters differ along what tells the label: its covariance with the features cannot be kept, and the "
            "least change is made without.",
            stacklevel=4,
        )
    else:
        told = erased - kept @ shared
    change = told @ torch.linalg.solve(erased.T @ told, erased.T)
    identity = torch.eye(len(root)).to(root)
    return identity - torch.linalg.solve_triangular(root.T, change @ root.T, upper=True)


def _span(columns: torch.Tensor) -> torch.Tensor:
    """An orthonormal basis (D, R) of what the columns span."""
    length = columns.norm(dim=0)
    columns = columns[:, length > 0] / length[length > 0]  # a weak direction counts as much as a strong one
    axes, strength, _ = torch.linalg.svd(columns, full_matrices=False)
    return axes[:, strength > 1e-10 * strength[:1]]
