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

"""Cross-validation folds for the comparison of models: index arrays made by scikit-learn's splitters."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, StratifiedShuffleSplit

__all__ = ["Fold", "grouped_folds", "monte_carlo_folds", "shuffled_groups", "stratified_folds"]

Fold = tuple[np.ndarray, np.ndarray]
"""Indices of the training and of the test samples."""


def stratified_folds(label: np.ndarray, cluster: np.ndarray, num_folds: int = 10, seed: int = 0) -> list[Fold]:
    """K folds over samples, stratified by class x cluster: every test fold is from seen clusters.

    Args:
        label: class of each sample (N,).
        cluster: cluster index of each sample (N,).
        num_folds: number of folds.
        seed: seed of the shuffle.

    Returns:
        One (training, test) pair of sorted index arrays a fold.

    Raises:
        ValueError: when lengths differ, a class x cluster cell has fewer samples than folds, or a fold has one class.
    """
    label, cluster = _same_length(label, cluster, "cluster")
    cells, stratum, counts = np.unique(np.stack([label, cluster]), axis=1, return_inverse=True, return_counts=True)
    if counts.min() < num_folds:
        y, z = cells[:, counts.argmin()]
        raise ValueError(
            f"class {y} has only {counts.min()} samples in cluster {z}, too few for {num_folds} stratified folds: "
            "use fewer folds, or leave that cluster out."
        )
    splitter = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
    return _checked(splitter.split(np.zeros(len(label)), stratum.ravel()), label)


def grouped_folds(label: np.ndarray, group: np.ndarray, num_folds: int = 10, seed: int = 0) -> list[Fold]:
    """K folds over whole groups (subjects, say), with class shares as equal as the groups allow.

    With ``group=cluster`` the test folds are unseen clusters.

    Args:
        label: class of each sample (N,).
        group: group of each sample (N,), numbers or strings; no group is in both parts of a fold.
        num_folds: number of folds.
        seed: seed of the shuffle.

    Returns:
        One (training, test) pair of sorted index arrays a fold.

    Raises:
        ValueError: when lengths differ, there are fewer groups than folds, or a fold has one class.
    """
    label, group = _same_length(label, group, "group")
    if (num_groups := len(np.unique(group))) < num_folds:
        raise ValueError(f"{num_groups} groups cannot make {num_folds} grouped folds: use at most {num_groups} folds.")
    _enough_of_each_class(label, num_folds)
    splitter = StratifiedGroupKFold(num_folds)
    return _checked(splitter.split(np.zeros(len(label)), label, shuffled_groups(group, seed)), label)


def shuffled_groups(group: np.ndarray, seed: int) -> np.ndarray:
    """
    Groups as numbers in random order, for ``StratifiedGroupKFold`` without its own ``shuffle``: releases before
    scikit-learn 1.8, the last for Python 3.10 among them, share out the classes unequally with it. The folds are those
    of newer releases with it.

    Args:
        group: group of each sample (N,), numbers or strings.
        seed: seed of the shuffle.

    Returns:
        the group's number for each sample (N,).
    """
    names, number = np.unique(group, return_inverse=True)
    order = np.arange(len(names))
    np.random.RandomState(seed).shuffle(order)
    return np.argsort(order)[number]


def monte_carlo_folds(
    label: np.ndarray, group: np.ndarray, num_folds: int = 10, test_fraction: float = 0.2, seed: int = 0
) -> list[Fold]:
    """Monte Carlo cross-validation: independent random splits of whole groups, stratified by the group's main class.

    Args:
        label: class of each sample (N,).
        group: group of each sample (N,), numbers or strings; no group is in both parts of a split.
        num_folds: number of random splits.
        test_fraction: share of the groups in each test part, between 0 and 1.
        seed: seed of the splits.

    Returns:
        One (training, test) pair of sorted index arrays a split.

    Raises:
        ValueError: when lengths differ, the groups are too few to split, or a split has one class.
    """
    label, group = _same_length(label, group, "group")
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must be between 0 and 1, got {test_fraction}.")
    _enough_of_each_class(label, 2)
    names, member = np.unique(group, return_inverse=True)
    classes, coded = np.unique(label, return_inverse=True)
    counts = np.zeros((len(names), len(classes)), int)
    np.add.at(counts, (member, coded), 1)
    splitter = StratifiedShuffleSplit(num_folds, test_size=test_fraction, random_state=seed)
    try:
        splits = list(splitter.split(names, counts.argmax(1)))
    except ValueError as e:
        raise ValueError(f"{len(names)} groups cannot be split with test_fraction {test_fraction}: {e}") from e
    return _checked(
        ((np.flatnonzero(np.isin(member, a)), np.flatnonzero(np.isin(member, b))) for a, b in splits), label
    )


def _same_length(label: np.ndarray, other: np.ndarray, name: str) -> Fold:
    label, other = np.asarray(label), np.asarray(other)
    if label.ndim != 1 or label.shape != other.shape:
        raise ValueError(f"label and {name} must both be (N,), got {label.shape} and {other.shape}.")
    return label, other


def _enough_of_each_class(label: np.ndarray, num_folds: int) -> None:
    classes, counts = np.unique(label, return_counts=True)
    if len(classes) < 2:
        raise ValueError(f"all {len(label)} samples are of class {classes.tolist()}: folds need two classes or more.")
    if counts.min() < num_folds:
        raise ValueError(
            f"class {classes[counts.argmin()]} has only {counts.min()} samples, too few for {num_folds} folds: "
            "use fewer folds."
        )


def _checked(splits: Iterable[Fold], label: np.ndarray) -> list[Fold]:
    """The splits as sorted index arrays, each part of which holds two classes or more."""
    folds = []
    for k, parts in enumerate(splits):
        for name, index in zip(("training", "test"), parts):
            if len(classes := np.unique(label[index])) < 2:
                raise ValueError(
                    f"fold {k}: the {name} part ({len(index)} samples) has only class {classes.tolist()}: "
                    "use fewer folds, a larger test part or another seed."
                )
        folds.append((np.sort(parts[0]), np.sort(parts[1])))
    return folds
