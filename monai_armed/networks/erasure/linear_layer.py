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


"""Removing what tells the clusters from a layer's features, in closed form."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from .eraser import ClusterEraser

__all__ = ["cluster_means", "erase_directions", "fold_eraser"]


def cluster_means(features: torch.Tensor, cluster: torch.Tensor, num_clusters: int) -> torch.Tensor:
    """
    How far the mean of each cluster is from the mean of all clusters, times the square root of its share of the
    samples, so that the sum of outer products is the covariance between clusters.

    Args:
        features: (N, D).
        cluster: index (N,); samples of unknown cluster, -1, do not count.
        num_clusters: number of clusters C.

    Returns:
        (C, D) in double precision; a cluster without samples has a row of zeros. Memory grows with (N + C) D.

    Raises:
        ValueError: when there is not one index from -1 to C - 1 for each sample.
    """
    if cluster.shape != features.shape[:1] or cluster.is_floating_point() or cluster.is_complex():
        raise ValueError(
            f"{len(features)} samples need as many cluster indices, got {cluster.dtype}, shape {tuple(cluster.shape)}."
        )
    if len(cluster) and not -1 <= int(cluster.min()) <= int(cluster.max()) < num_clusters:
        raise ValueError(
            f"cluster indices are from {int(cluster.min())} to {int(cluster.max())}: they must be from 0 to "
            f"{num_clusters - 1}, or -1 where not known."
        )
    cluster, features = cluster.cpu(), features.cpu()  # not all devices have double
    known = cluster >= 0
    index, features = cluster[known].long(), features[known].double()  # a sum that is zero is to be seen as zero
    count = features.new_zeros(num_clusters, 1).index_add_(0, index, features.new_ones(len(index), 1))
    means = features.new_zeros(num_clusters, features.shape[1]).index_add_(0, index, features) / count.clamp(min=1)
    share = count / count.sum().clamp(min=1)
    return (means - (share * means).sum(dim=0)) * share.sqrt()


@torch.no_grad()
def erase_directions(
    layer: nn.Linear, features: torch.Tensor, directions: torch.Tensor, shrinkage: float = 1e-3
) -> torch.Tensor:
    """
    Change a linear layer so that its output does not vary along some directions, and changes no more than that takes
    (LEACE, theorem 4.2 of Belrose et al. 2023, https://arxiv.org/abs/2306.03819). With the directions of
    :py:func:`cluster_means`, all clusters have the same mean afterwards, and no linear classifier that is trained on
    these features names the cluster better than one that does not see them: the optimum of a linear adversary, in one
    step and without a game. Nothing is added to the network.

    Args:
        layer: the layer, changed in place.
        features: the layer's own outputs (N, D) on the training samples, not those of what comes after it.
        directions: (K, D), of which the span is erased; of more than D / 2 the strongest, with a warning.
        shrinkage: added to the features' variances, as a share of their mean.

    Returns:
        the projection (D, D) that outputs, less their mean, were multiplied with from the right.

    Raises:
        ValueError: when the layer is not linear, or the features are not of this layer, are less than two, or are not
            finite; the same of the directions, of which there must be one.
    """
    if not isinstance(layer, nn.Linear) or layer.out_features < 2:
        raise ValueError(f"directions are erased from a linear layer of two outputs or more, got {layer}.")
    size = layer.out_features
    if features.ndim != 2 or features.shape[1] != size or directions.shape[1:] != (size,):
        raise ValueError(
            f"the layer has {size} outputs, features of shape {tuple(features.shape)} and directions of shape "
            f"{tuple(directions.shape)} are not of it."
        )
    if len(features) < 2 or not features.isfinite().all():
        raise ValueError("the features' covariance needs at least two samples with finite features.")
    if not len(directions) or not directions.isfinite().all():
        raise ValueError(f"{len(directions)} directions: at least one is needed, and all must be finite.")
    features, directions = features.cpu().double(), directions.cpu().double()  # not all devices have double
    mean = features.mean(dim=0)
    covariance = torch.cov(features.T)
    identity = torch.eye(size).to(covariance)
    covariance = covariance + shrinkage * covariance.diagonal().mean().clamp(min=1e-12) * identity
    variances, axes = torch.linalg.eigh(covariance)
    whiten, colour = (axes * variances.rsqrt()) @ axes.T, (axes * variances.sqrt()) @ axes.T
    _, strength, span = torch.linalg.svd(directions @ whiten, full_matrices=False)
    found = int((strength > 1e-6 * strength.max()).sum())
    if found > size // 2:
        warnings.warn(
            f"{found} directions tell the clusters apart; erased are the strongest {size // 2}, half of the layer's "
            f"{size} outputs, and the rest may still tell them: a wider layer has room for all.",
            stacklevel=3,  # of the caller: no_grad is between
        )
    kept = span[: min(found, size // 2)]
    projection = identity - whiten @ kept.T @ kept @ colour
    _follow(layer, projection, mean - mean @ projection)
    return projection


@torch.no_grad()
def fold_eraser(layer: nn.Linear, eraser: ClusterEraser) -> None:
    """
    Make an eraser part of the linear layer whose outputs it erases from: nothing is added to the network.

    Args:
        layer: the layer, changed in place; it gets a bias if it has none.
        eraser: fitted to the layer's outputs.
    """
    _follow(layer, eraser.matrix.cpu().double(), eraser.offset.cpu().double())  # not all devices have double


def _follow(layer: nn.Linear, matrix: torch.Tensor, offset: torch.Tensor) -> None:
    """Make a layer give what a matrix (D, D) and an offset (D,), in double precision, make of its outputs."""
    bias = offset if layer.bias is None else layer.bias.cpu().double() @ matrix + offset
    layer.weight.copy_(matrix.T @ layer.weight.cpu().double())
    if layer.bias is None:
        layer.bias = nn.Parameter(bias.to(layer.weight))
    else:
        layer.bias.copy_(bias)
