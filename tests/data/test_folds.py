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
import pytest
import sklearn
from sklearn.model_selection import StratifiedGroupKFold

from monai_armed.data.folds import grouped_folds, monte_carlo_folds, shuffled_groups, stratified_folds

RNG = np.random.RandomState(0)
CLUSTER = np.repeat(np.arange(5), 60)
LABEL = (RNG.rand(300) < np.linspace(0.3, 0.7, 5)[CLUSTER]).astype(int)
SUBJECT = np.array([f"sub-{i // 4:02d}" for i in range(300)])


def test_stratified_folds_are_a_partition_with_equal_cells():
    folds = stratified_folds(LABEL, CLUSTER, num_folds=10, seed=1)
    assert len(folds) == 10
    np.testing.assert_array_equal(np.sort(np.concatenate([test for _, test in folds])), np.arange(300))
    for train, test in folds:
        np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(300))
        for j in range(5):
            for y in (0, 1):
                cell = (CLUSTER == j) & (LABEL == y)
                assert abs(cell[test].sum() - cell.sum() / 10) < 1


def test_grouped_folds_keep_groups_whole_and_test_each_once():
    folds = grouped_folds(LABEL, SUBJECT, num_folds=5)
    np.testing.assert_array_equal(np.sort(np.concatenate([test for _, test in folds])), np.arange(300))
    for train, test in folds:
        assert not set(SUBJECT[train]) & set(SUBJECT[test])
        assert len(train) + len(test) == 300


def test_grouped_folds_share_out_the_classes():
    """Subjects of one class each, a fifth of them of class 1: each fold has as many, within one subject."""
    label = np.repeat(np.arange(50) % 5 == 0, 4).astype(int)
    group = np.repeat(np.random.default_rng(0).permutation(50), 4)
    tests = [[set(group[test]) for _, test in grouped_folds(label, group, num_folds=5, seed=s)] for s in range(3)]
    assert tests[0] != tests[1] != tests[2]
    for folds in tests:
        assert [sum(label[group == g][0] for g in chosen) for chosen in folds] == [2] * 5


@pytest.mark.skipif(
    tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 8),
    reason="its shuffle shares out classes wrongly",
)
def test_shuffled_groups_give_scikit_learns_folds():
    own = StratifiedGroupKFold(5).split(LABEL, LABEL, shuffled_groups(SUBJECT, 3))
    for ours, theirs in zip(own, StratifiedGroupKFold(5, shuffle=True, random_state=3).split(LABEL, LABEL, SUBJECT)):
        np.testing.assert_array_equal(ours[1], theirs[1])


def test_clusters_as_groups_give_unseen_clusters():
    for train, test in grouped_folds(LABEL, CLUSTER, num_folds=5):
        assert len(np.unique(CLUSTER[test])) == 1 and CLUSTER[test[0]] not in CLUSTER[train]


def test_monte_carlo_folds_are_independent_grouped_splits():
    folds = monte_carlo_folds(LABEL, SUBJECT, num_folds=4, test_fraction=0.2)
    assert len(folds) == 4
    for train, test in folds:
        assert not set(SUBJECT[train]) & set(SUBJECT[test])
        assert len(np.unique(SUBJECT[test])) == 15
        np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(300))
    assert not np.array_equal(folds[0][1], folds[1][1])


def test_monte_carlo_folds_are_stratified_by_the_groups_class():
    group = np.arange(100)
    label = (group < 10).astype(int)
    for _, test in monte_carlo_folds(label, group, num_folds=20, test_fraction=0.2):
        assert label[test].sum() == 2


@pytest.mark.parametrize("make, other", [(stratified_folds, CLUSTER), (grouped_folds, SUBJECT)])
def test_the_seed_decides(make, other):
    first, same, differs = (make(LABEL, other, 5, seed=s) for s in (3, 3, 4))
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(first, same))
    assert not all(np.array_equal(a[1], b[1]) for a, b in zip(first, differs))


def test_bad_input_gets_one_sentence():
    with pytest.raises(ValueError, match=r"class 1 has only 2 samples in cluster 0, too few for 3"):
        stratified_folds(np.array([0, 0, 0, 1, 1]), np.zeros(5, int), num_folds=3)
    with pytest.raises(ValueError, match="all 300 samples are of class"):
        grouped_folds(np.zeros(300), SUBJECT, 5)
    with pytest.raises(ValueError, match="5 groups cannot make 6 grouped folds"):
        grouped_folds(LABEL, CLUSTER, 6)
    with pytest.raises(ValueError, match="label and group must both be"):
        grouped_folds(LABEL, SUBJECT[:-1], 5)
    with pytest.raises(ValueError, match="test_fraction must be between 0 and 1, got 1"):
        monte_carlo_folds(LABEL, SUBJECT, test_fraction=1)
    with pytest.raises(ValueError, match="class 1 has only 2 samples, too few for 3 folds"):
        grouped_folds(np.array([0] * 8 + [1] * 2), np.arange(10), 3)
    with pytest.raises(ValueError, match="2 groups cannot be split with test_fraction"):
        monte_carlo_folds(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]))


def test_a_fold_with_one_class_is_an_error():
    # class 1 lives in one group alone: it is missing either from the training or from the test part
    label, group = np.array([0] * 9 + [1] * 3), np.repeat(np.arange(4), 3)
    with pytest.raises(ValueError, match=r"fold \d: the (training|test) part .* has only class \[0\]"):
        grouped_folds(label, group, 3)
