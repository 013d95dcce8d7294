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

"""How well a linear classifier would tell two clusters apart, from sums of features alone."""

from __future__ import annotations

import torch

from ..networks.erasure.feature_sums import FeatureSums
from ..networks.erasure.shrinkage import shrunk_covariance

__all__ = ["linear_probe_auroc"]


def linear_probe_auroc(learn: FeatureSums, held_out: FeatureSums) -> float:
    """
    AUROC with which linear discriminants (LDA) that are fitted to some samples tell two clusters apart among others,
    mean over all pairs of clusters with the number of pairs of samples as weight: within each class, or, where the
    label is continuous, with the label regressed out. No sample is looked at again: a discriminant w finds
    Phi(w d / s) of held-out pairs in the right order, with d the difference of the held-out means and s the s.d. of a
    difference along w, where features are about normal. It costs no more than to fit an eraser, so that the strength
    of an adversary can be judged by it in every epoch.

    Args:
        learn: sums that the discriminants are fitted to.
        held_out: sums of other samples of the same clusters.

    Returns:
        1: told apart for certain; 0.5: not at all; below: held-out clusters differ the other way round.

    Raises:
        ValueError: when the sums are of different features, clusters or labels, or no two clusters (of a class) are in
            both.
    """
    if any(held_out.state_dict()[name].shape != sums.shape for name, sums in learn.state_dict().items()):
        raise ValueError("learn and held_out must be sums of the same features, clusters and labels.")
    size = learn.num_features
    columns, mean, within, samples = _moments(learn)
    slopes = torch.linalg.pinv(within[size:, size:], hermitian=True) @ within[size:, :size]
    of_features = torch.cat([torch.eye(size).to(slopes), -slopes])  # (D + P, D): less what the label tells
    covariance = shrunk_covariance(of_features.T @ within @ of_features / samples, samples)
    other_columns, other_mean, other_within, other_samples = _moments(held_out)
    spread = of_features.T @ other_within @ of_features / other_samples
    found = weight = 0.0
    for k in range(columns.shape[1]):
        both = (columns[:, k] > 0) & (other_columns[:, k] > 0)
        discriminants = torch.linalg.solve(covariance, (mean[both, k] @ of_features).T).T
        distance = _of_pairs(discriminants @ (other_mean[both, k] @ of_features).T)
        variance = _of_pairs(discriminants @ spread @ discriminants.T)
        auroc = torch.special.ndtr(distance / (2 * variance).clamp(min=1e-300).sqrt())
        pairs = torch.outer(other_columns[both, k], other_columns[both, k]).triu(1)
        found, weight = found + float((pairs * auroc).sum()), weight + float(pairs.sum())
    if weight == 0:
        raise ValueError(
            "learn and held_out have no two clusters (of a class) in common: there is nothing to tell apart."
        )
    return found / weight


def _moments(sums: FeatureSums) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """Count (C, K) and mean (C, K, D + P) of each known cluster and class, scatter within them, degrees of freedom."""
    mean = sums.total / sums.count.clamp(min=1).unsqueeze(-1)
    within = sums.second - torch.einsum("ckd,cke->de", sums.total, mean)
    known = slice(None, -1 if sums.num_classes or sums.num_values else 1)
    freedom = max(1.0, float(sums.count.sum()) - int((sums.count > 0).sum()))
    return sums.count[:-1, known], mean[:-1, known], within, freedom


def _of_pairs(products: torch.Tensor) -> torch.Tensor:
    """(a_i - a_j) . (b_i - b_j) of all pairs, (C, C), from the products a_i . b_j."""
    own = products.diagonal()
    return own.unsqueeze(1) + own - products - products.T
