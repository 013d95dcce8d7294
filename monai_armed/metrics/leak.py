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

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import roc_auc_score

__all__ = ["cluster_leak", "mean_cluster_leak"]


def cluster_leak(score: ArrayLike, attribute: ArrayLike) -> float:
    """
    The leak: AUROC with which a model's score tells a nuisance attribute, such as the scanner's maker, among samples
    that do not differ in what the score is for, such as controls of unseen sites. 0.5: the score has nothing of it.
    A score that tells the attribute with the opposite sign leaks as much, so values below 0.5 are folded to above it;
    with few samples chance alone then gives a little more than 0.5.

    Args:
        score: prediction for each sample, (N,).
        attribute: whether each sample has the attribute, (N,), boolean.

    Returns:
        between 0.5 and 1; NaN where all samples have the attribute, or none.
    """
    attribute = np.asarray(attribute, dtype=bool)
    if attribute.all() or not attribute.any():
        return float("nan")
    return 0.5 + abs(float(roc_auc_score(attribute, np.asarray(score, dtype=float))) - 0.5)


def mean_cluster_leak(score: ArrayLike, cluster: ArrayLike) -> float:
    """
    :py:func:`cluster_leak` of each cluster against the others, mean over the clusters.

    Args:
        score: prediction for each sample, (N,), of samples that do not differ in what it is for.
        cluster: name or index of each sample's cluster, (N,).

    Returns:
        between 0.5 and 1; NaN where there is one cluster.
    """
    cluster = np.asarray(cluster)
    return float(np.mean([cluster_leak(score, cluster == one) for one in np.unique(cluster)]))
