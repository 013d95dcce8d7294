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

import math

import numpy as np
import pandas as pd
import pytest

from monai_armed.metrics.cluster_separation import (
    centre_by_cluster,
    cluster_separation,
    effective_dimension,
    mean_by_group,
    separation_gap,
    within_class_accuracy,
)


def gaussians(distance: float, seed: int = 0, samples: int = 240, clusters: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Features (samples, 6) of clusters whose means are drawn with s.d. ``distance`` around zero; within, it is 1."""
    rng = np.random.default_rng(seed)
    means = np.random.default_rng(7).normal(0, distance, (clusters, 6))
    cluster = rng.integers(0, clusters, samples)
    return means[cluster] + rng.normal(size=(samples, 6)), cluster


def test_separated_clusters_are_far_from_the_null_and_others_are_at_it():
    apart = cluster_separation(*gaussians(3.0))
    assert apart["davies_bouldin"] < 1.5 and apart["davies_bouldin_null"] > 5
    assert apart["calinski_harabasz"] > 100 > apart["calinski_harabasz_null"]
    mixed = cluster_separation(*gaussians(0.0))
    assert mixed["davies_bouldin"] == pytest.approx(mixed["davies_bouldin_null"], rel=0.3)
    for result in (apart, mixed):  # an F statistic, whose expectation without effects is a little over 1
        assert result["calinski_harabasz_null"] == pytest.approx(1.0, abs=0.15)


def test_the_unit_of_a_feature_does_not_matter_and_the_seed_decides_the_null():
    x, cluster = gaussians(1.0)
    first = cluster_separation(x, cluster, num_permutations=5)
    assert cluster_separation(x * [1, 10, 100, 1, 1, 0.01] + 5, cluster, num_permutations=5) == pytest.approx(first)
    other = cluster_separation(x, cluster, num_permutations=5, seed=1)
    assert other["davies_bouldin"] == first["davies_bouldin"]
    assert other["davies_bouldin_null"] != first["davies_bouldin_null"]


def test_samples_of_unknown_cluster_are_left_out():
    x, cluster = gaussians(1.0)
    more = np.concatenate([x, np.full((9, 6), 1e3)]), np.concatenate([cluster, np.full(9, -1)])
    assert cluster_separation(*more) == cluster_separation(x, cluster)


def test_gap_from_the_conventional_network_to_the_null():
    conventional = cluster_separation(*gaussians(3.0))
    assert separation_gap(conventional, conventional) == {"davies_bouldin_closed": 0, "calinski_harabasz_ratio": 1}
    keys = ("davies_bouldin", "davies_bouldin_null", "calinski_harabasz", "calinski_harabasz_null")
    model, other = dict(zip(keys, (8.0, 10.0, 6.0, 1.0))), dict(zip(keys, (2.0, 12.0, 23.0, 3.0)))
    assert separation_gap(model, other) == {"davies_bouldin_closed": 6 / 8, "calinski_harabasz_ratio": 5 / 20}
    half = separation_gap(cluster_separation(*gaussians(0.4)), conventional)
    assert 0 < half["davies_bouldin_closed"] < 0.8 and 0.01 < half["calinski_harabasz_ratio"] < 0.5
    nothing = dict(zip(keys, (12.0, 10.0, 0.5, 1.0)))
    assert all(math.isnan(v) for v in separation_gap(nothing, nothing).values())


def test_effective_dimension_counts_directions():
    x = np.random.default_rng(0).normal(size=(5000, 4))
    assert effective_dimension(x * [1, 10, 0.1, 3]) == pytest.approx(4, rel=0.01)
    assert effective_dimension(np.repeat(x[:, :2], 3, axis=1)) == pytest.approx(2, rel=0.01)
    assert effective_dimension(np.column_stack([x[:, 0], -2 * x[:, 0], np.ones(5000)])) == pytest.approx(1)
    assert math.isnan(effective_dimension(np.ones((5, 2))))


def test_frames_of_a_cell_are_averaged():
    frames = np.array([[1.0, 2.0], [10.0, 20.0], [3.0, 6.0]])
    means, first = mean_by_group(frames, ["b", "a", "b"])
    np.testing.assert_array_equal(means, [[10, 20], [2, 4]])
    np.testing.assert_array_equal(first, [1, 0])


def test_frames_taken_for_cells_shift_the_result_and_their_means_do_not():
    x, cluster = gaussians(0.0, samples=120)
    group = np.repeat(np.arange(120), 10)
    frames = x[group] + np.random.default_rng(1).normal(0, 0.01, (1200, 6))
    as_frames = cluster_separation(frames, cluster[group], num_permutations=20)
    means, first = mean_by_group(frames, group)
    as_cells = cluster_separation(means, cluster[group][first], num_permutations=20)
    assert as_frames["calinski_harabasz"] > 5 * as_frames["calinski_harabasz_null"]
    assert as_cells["calinski_harabasz"] < 2 * as_cells["calinski_harabasz_null"]


def test_centring_removes_the_difference_of_means_but_not_of_variance():
    train, test = gaussians(3.0), gaussians(3.0, seed=1)
    centred = centre_by_cluster(*train, *train)
    for c in range(4):
        np.testing.assert_allclose(centred[train[1] == c].mean(0), 0, atol=1e-12)
    assert cluster_separation(centred, train[1])["davies_bouldin"] > 1e3
    held_out = separation_gap(cluster_separation(centre_by_cluster(*train, *test), test[1]), cluster_separation(*test))
    assert held_out["davies_bouldin_closed"] > 0.5 and held_out["calinski_harabasz_ratio"] < 0.05
    wide = train[0] * (1 + train[1][:, None])
    spread = [x.std() for x in (centre_by_cluster(wide, train[1], wide, train[1])[train[1] == c] for c in (0, 3))]
    assert spread[1] > 3 * spread[0]


def test_a_cluster_without_training_samples_is_centred_by_all_of_them():
    train = np.array([[0.0], [2.0], [7.0]])
    got = centre_by_cluster(train, [0, 0, 1], np.full((4, 1), 10.0), [0, 1, 2, -1])
    np.testing.assert_allclose(got, [[9], [3], [7], [7]])
    np.testing.assert_allclose(centre_by_cluster(train, [0, 0, -1], [[7.0]], [-1]), [[4]])


def test_within_class_accuracy_is_weighted_by_samples():
    rows = [("a", "mlp", "all", 40, 0.9, 0.1), ("a", "mlp", "0", 30, 0.2, 0.1), ("a", "mlp", "1", 10, 0.6, 0.3)]
    columns = ["layer", "probe", "class", "samples", "balanced_accuracy", "chance"]
    table = pd.DataFrame([*rows, ("a", "logistic", "0", 5, 0.7, 0.25)], columns=columns)
    got = within_class_accuracy(table)
    expected = pd.DataFrame(
        {
            "layer": ["a", "a"],
            "probe": ["mlp", "logistic"],
            "samples": [40, 5],
            "balanced_accuracy": [0.3, 0.7],
            "chance": [0.15, 0.25],
        }
    )
    pd.testing.assert_frame_equal(got, expected)
    with pytest.raises(ValueError, match="no row of a single class"):
        within_class_accuracy(table[table["class"] == "all"])


@pytest.mark.parametrize(
    "features, cluster, message",
    [
        (np.eye(4), [0, 0, 0, 0], "at least two clusters"),
        (np.eye(4), [0, -1, -1, 0], "2 samples of known cluster in 1 clusters"),
        (np.eye(4), [0, 1, 2, 3], "more samples than clusters"),
        (np.diag([1, np.nan, np.inf, 1]), [0, 0, 1, 1], "2 of 4 rows of the features are not finite"),
        (np.eye(4), [0, 0, 1], "one cluster for each row"),
        (np.ones(4), [0, 0, 1, 1], r"must be \(N, F\)"),
        (np.ones((4, 2)), [0, 0, 1, 1], "did they collapse"),
    ],
)
def test_clear_errors(features, cluster, message):
    with pytest.raises(ValueError, match=message):
        cluster_separation(features, cluster)


def test_clear_errors_of_centring():
    with pytest.raises(ValueError, match="training samples have 2 features, the others have 3"):
        centre_by_cluster(np.ones((2, 2)), [0, 1], np.ones((1, 3)), [0])
    with pytest.raises(ValueError, match="one train_cluster for each row"):
        centre_by_cluster(np.ones((2, 2)), [0], np.ones((1, 2)), [0])
