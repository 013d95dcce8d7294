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


"""How far the features of clusters lie apart: Davies-Bouldin and Calinski-Harabasz beside their null, and baselines."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score
from sklearn.preprocessing import StandardScaler

__all__ = [
    "centre_by_cluster",
    "cluster_separation",
    "effective_dimension",
    "mean_by_group",
    "separation_gap",
    "within_class_accuracy",
]


def cluster_separation(
    features: ArrayLike, cluster: ArrayLike, num_permutations: int = 100, seed: int = 0
) -> dict[str, float]:
    """
    Davies-Bouldin (high: the clusters overlap) and Calinski-Harabasz (low: they overlap) of standardised features, as
    Table 5 of https://arxiv.org/abs/2202.11783 has them, and what features that know nothing of the cluster would
    have: the mean under permutation of the clusters.

    Samples that belong together, such as frames of one cell, must be averaged first (:py:func:`mean_by_group`): the
    permutation takes every sample for independent.

    Args:
        features: (N, F).
        cluster: integer index (N,); samples of unknown cluster (-1) are left out.
        num_permutations: number of permutations.
        seed: of the permutations.

    Returns:
        ``davies_bouldin`` (infinite where all clusters have the same mean), ``davies_bouldin_null``,
        ``calinski_harabasz``, ``calinski_harabasz_null``.

    Raises:
        ValueError: when the lengths differ, a feature is not finite, no feature varies, there are fewer than two
            clusters, or as many clusters as samples.
    """
    x, index = _rows(features, cluster, "cluster")
    x, index = x[index >= 0], index[index >= 0]
    num_clusters = len(np.unique(index))
    if num_clusters < 2 or num_clusters >= len(index):
        raise ValueError(
            f"{len(index)} samples of known cluster in {num_clusters} clusters: at least two clusters are needed, and "
            "more samples than clusters."
        )
    x = StandardScaler().fit_transform(x)
    if not x.any():
        raise ValueError("all samples have the same features, so clusters cannot be told apart: did they collapse?")
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(index) for _ in range(num_permutations)]
    result = {}
    for name, score in (("davies_bouldin", davies_bouldin_score), ("calinski_harabasz", calinski_harabasz_score)):
        result[name] = float(score(x, index))
        result[f"{name}_null"] = float(np.mean([score(x, order) for order in orders]))
    if result["davies_bouldin"] == 0 and result["calinski_harabasz"] < 1:  # scikit-learn's for equal means
        result["davies_bouldin"] = float("inf")
    return result


def effective_dimension(features: ArrayLike) -> float:
    """
    Effective number of dimensions of features: the participation ratio (sum of l)^2 / sum of l^2 of the eigenvalues l
    of their correlation matrix. Read it beside any measure of invariance: features that have collapsed to few
    dimensions tell neither the cluster nor much else.

    Args:
        features: (N, D).

    Returns:
        between 1, all features are one, and D, they are uncorrelated; NaN if none varies.
    """
    x = np.asarray(features, dtype=float)
    x = x[:, x.std(axis=0) > 0]
    if not x.shape[1]:
        return float("nan")
    eigenvalues = np.linalg.svd(StandardScaler().fit_transform(x), compute_uv=False) ** 2
    return float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())


def separation_gap(model: Mapping[str, float], conventional: Mapping[str, float]) -> dict[str, float]:
    """
    How much of a conventional network's separation by cluster a model has removed. Each model's null is that of its
    own features, since it depends on how many dimensions they fill::

        davies_bouldin_closed   = (DB_model - DB_conventional) / (null_model - DB_conventional)
        calinski_harabasz_ratio = (CH_model - null_model) / (CH_conventional - null_conventional)

    Args:
        model: :py:func:`cluster_separation` of the model's features.
        conventional: that of the conventional network's features, on the same samples.

    Returns:
        ``davies_bouldin_closed``, 1 where the model is at its null, and ``calinski_harabasz_ratio``, 0 where it is;
        NaN where the conventional network is itself at the null or beyond, so that there is no gap.
    """
    gap = model["davies_bouldin_null"] - conventional["davies_bouldin"]
    excess = conventional["calinski_harabasz"] - conventional["calinski_harabasz_null"]
    return {
        "davies_bouldin_closed": (model["davies_bouldin"] - conventional["davies_bouldin"]) / gap
        if gap > 0
        else float("nan"),
        "calinski_harabasz_ratio": (model["calinski_harabasz"] - model["calinski_harabasz_null"]) / excess
        if excess > 0
        else float("nan"),
    }


def mean_by_group(features: ArrayLike, group: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """
    Mean features of each group, such as of all frames of a cell.

    Args:
        features: (N, F).
        group: name or number of each sample's group, (N,).

    Returns:
        means (G, F), with the groups in sorted order, and the index (G,) of the first sample of each group, by which
        what is alike within a group (its cluster, its class) is looked up.

    Raises:
        ValueError: when the lengths differ or a feature is not finite.
    """
    x, group = _rows(features, group, "group")
    _, first, inverse, count = np.unique(group, return_index=True, return_inverse=True, return_counts=True)
    total = np.zeros((len(first), x.shape[1]))
    np.add.at(total, inverse, x)
    return total / count[:, None], first


def centre_by_cluster(
    train_features: ArrayLike, train_cluster: ArrayLike, features: ArrayLike, cluster: ArrayLike
) -> np.ndarray:
    """
    The simplest removal of cluster effects, a baseline: subtract from each sample the mean training features of its
    cluster. Of a cluster that is unknown or not in the training data, the mean of all training samples is subtracted.

    Args:
        train_features: (N, F), from which the means are estimated.
        train_cluster: integer index (N,), -1 where not known.
        features: (M, F).
        cluster: integer index (M,), -1 where not known.

    Returns:
        the centred features (M, F).

    Raises:
        ValueError: when the lengths or the numbers of features differ, or a feature is not finite.
    """
    train_x, train_index = _rows(train_features, train_cluster, "train_cluster")
    x, index = _rows(features, cluster, "cluster")
    if x.shape[1] != train_x.shape[1]:
        raise ValueError(f"the training samples have {train_x.shape[1]} features, the others have {x.shape[1]}.")
    means = np.broadcast_to(train_x.mean(axis=0), x.shape).copy()
    known = np.unique(train_index[train_index >= 0])
    for c in np.intersect1d(known, index):
        means[index == c] = train_x[train_index == c].mean(axis=0)
    return x - means


def within_class_accuracy(audit_table: pd.DataFrame) -> pd.DataFrame:
    """
    The audit's accuracy at naming the cluster among samples of one class, as one figure for all classes.

    Args:
        audit_table: of :py:func:`monai_armed.metrics.audit.audit_features`; tables of several seeds may be joined.

    Returns:
        a row for each ``layer`` and ``probe``: test ``samples``, and ``balanced_accuracy`` and ``chance``, averaged
        over the classes with the number of test samples as weight.

    Raises:
        ValueError: when the table has no row of a single class.
    """
    rows = audit_table[audit_table["class"] != "all"]
    if rows.empty:
        raise ValueError(
            "the audit's table has no row of a single class: audit features with labels, and with two clusters or "
            "more in a class."
        )
    columns = ["balanced_accuracy", "chance"]
    weighted = rows[columns].mul(rows["samples"], axis=0).assign(samples=rows["samples"])
    total = weighted.groupby([rows["layer"], rows["probe"]], sort=False).sum()
    total[columns] = total[columns].div(total["samples"], axis=0)
    return total[["samples", *columns]].reset_index()


def _rows(features: ArrayLike, index: ArrayLike, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Finite features (N, F) and what there is one of for each of them (N,)."""
    x, values = np.asarray(features, dtype=float), np.asarray(index)
    if x.ndim != 2 or values.shape != (len(x),):
        raise ValueError(
            f"features must be (N, F) and {name} (N,), got the shapes {x.shape} and {values.shape}: give one {name} "
            "for each row."
        )
    if not np.isfinite(x).all():
        bad = int((~np.isfinite(x).all(axis=1)).sum())
        raise ValueError(f"{bad} of {len(x)} rows of the features are not finite: did the training diverge?")
    return x, values
