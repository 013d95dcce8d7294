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

import warnings

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import one_hot

from monai_armed.networks.erasure import ClusterEraser, FeatureSums, fit_eraser
from monai_armed.networks.erasure.fit import _scatter

SIZE, CLUSTERS, SAMPLES = 14, 4, 800


def draw(samples=SAMPLES):
    """Correlated features of clusters that differ in the mean of each class and in their shares of the classes."""
    cluster = torch.arange(samples) % CLUSTERS
    label = (torch.rand(samples) < torch.tensor([0.1, 0.3, 0.5, 0.8])[cluster]).long()
    features = torch.randn(samples, SIZE, dtype=torch.double) @ draw.mixing
    return features + draw.of_cluster[cluster, label] + draw.of_label * label.unsqueeze(1), cluster, label


@pytest.fixture(autouse=True)
def truth():
    torch.manual_seed(0)
    draw.mixing = torch.randn(SIZE, SIZE, dtype=torch.double) / SIZE**0.5
    draw.of_cluster = torch.randn(CLUSTERS, 1, SIZE).double() + 0.3 * torch.randn(CLUSTERS, 2, SIZE).double()
    draw.of_label = torch.randn(SIZE, dtype=torch.double)


def sums_of(features, cluster, label=None, **options):
    sums = FeatureSums(features.shape[1], int(cluster.max()) + 1, **options)
    sums.update(features, cluster, label)
    return sums


def largest_difference(features, cluster):
    return max(float((features[cluster == c].mean(0) - features.mean(0)).abs().max()) for c in cluster.unique())


def residual(features, *columns):
    """Of a least squares fit."""
    design = torch.stack([torch.ones(len(features)).double(), *columns], dim=1)
    return features - design @ torch.linalg.lstsq(design, features, driver="gelsd").solution


@pytest.mark.parametrize("above_noise", [True, False])
def test_means_of_clusters_are_equal(above_noise):
    features, cluster, _ = draw()
    erased = fit_eraser(sums_of(features, cluster), above_noise=above_noise)(features)
    assert largest_difference(features, cluster) > 0.5
    assert largest_difference(erased, cluster) < 1e-10
    torch.testing.assert_close(erased.mean(0), features.mean(0))


def test_means_of_clusters_are_equal_within_each_class_and_those_of_classes_still_differ():
    features, cluster, label = draw()
    eraser = fit_eraser(sums_of(features, cluster, label, num_classes=2))
    erased = eraser(features)
    assert eraser.rank == 2 * (CLUSTERS - 1)
    for k in range(2):
        assert largest_difference(features[label == k], cluster[label == k]) > 0.5
        assert largest_difference(erased[label == k], cluster[label == k]) < 1e-10
    between = [(x[label == 1].mean(0) - x[label == 0].mean(0)).norm() for x in (features, erased)]
    assert between[1] > 0.3 * between[0]


@pytest.mark.parametrize("within_label", [True, False])
def test_covariance_with_the_class_within_clusters_is_kept_where_asked(within_label):
    features, cluster, label = draw()
    of_cluster = list(one_hot(cluster).double().T[1:])
    rest = residual(label.double().unsqueeze(1), *of_cluster)
    sums = sums_of(features, cluster, label, num_classes=2)
    kept, not_kept = (
        fit_eraser(sums, within_label=within_label, keep_label=keep)(features) - features for keep in (True, False)
    )
    assert (kept.T @ rest).abs().max() / SAMPLES < 1e-10
    assert (not_kept.T @ rest).abs().max() / SAMPLES > 1e-3
    assert not_kept.square().sum() < kept.square().sum() * 1.05  # the least change, but for the shrunk covariance


def test_continuous_label_is_regressed_out():
    """As an analysis of covariance has it, here by least squares."""
    features, cluster, _ = draw()
    age = torch.randn(SAMPLES).double() + cluster
    features = features + age.unsqueeze(1) * draw.of_label
    sums = sums_of(features, cluster, age, num_values=1)
    of_cluster = list(one_hot(cluster).double().T[1:])
    without, full = residual(features, age), residual(features, age, *of_cluster)
    scatter = _scatter(sums, given_label=True)
    torch.testing.assert_close(scatter.within, full.T @ full)
    torch.testing.assert_close(scatter.differences.T @ scatter.differences, without.T @ without - full.T @ full)
    assert (scatter.group_df, scatter.error_df) == (CLUSTERS - 1, SAMPLES - CLUSTERS - 1)
    erased = fit_eraser(sums)(features)
    means = [residual(x, age).T @ torch.stack(of_cluster, dim=1) / SAMPLES for x in (features, erased)]
    assert means[0].abs().max() > 0.1 and means[1].abs().max() < 1e-10  # clusters tell nothing beside the age
    slope = residual(erased - features, *of_cluster).T @ residual(age.unsqueeze(1), *of_cluster) / SAMPLES
    assert slope.abs().max() < 1e-10


def test_classes_as_columns_give_up_the_differences_that_all_classes_share():
    features, cluster, label = draw()
    eraser = fit_eraser(sums_of(features, cluster, one_hot(label).double(), num_values=2))
    erased = residual(eraser(features), label.double())
    assert eraser.rank == CLUSTERS - 1
    assert (erased.T @ one_hot(cluster).double()).abs().max() / SAMPLES < 1e-10


def test_no_linear_classifier_names_the_cluster_of_held_out_samples():
    learn, held_out = draw(), draw()
    eraser = fit_eraser(sums_of(*learn, num_classes=2))
    found = []
    for change in (torch.nn.Identity(), eraser):
        scores = []
        for k in range(2):
            x, cluster = (tensor[learn[2] == k] for tensor in (change(learn[0]), learn[1]))
            probe = LogisticRegression(max_iter=2000, class_weight="balanced").fit(x.numpy(), cluster.numpy())
            x, cluster = (tensor[held_out[2] == k] for tensor in (change(held_out[0]), held_out[1]))
            predicted = torch.from_numpy(probe.predict(x.numpy()))
            scores += [float((predicted == c)[cluster == c].double().mean()) for c in range(CLUSTERS)]
        found.append(sum(scores) / len(scores))
    assert found[0] > 0.7 and abs(found[1] - 1 / CLUSTERS) < 0.05


def test_the_change_is_no_more_than_it_must_be():
    features, cluster, _ = draw(40_000)  # so many that the covariance is not shrunk to speak of
    sums = sums_of(features, cluster)
    erased = fit_eraser(sums)(features)
    means = torch.stack([features[cluster == c].mean(0) - features.mean(0) for c in range(CLUSTERS)])
    values, axes = torch.linalg.eigh(features.T.cov())
    whiten, colour = (axes * values.rsqrt()) @ axes.T, (axes * values.sqrt()) @ axes.T
    named = torch.linalg.pinv(means @ whiten, rtol=1e-6) @ means @ whiten  # the closed form, from all samples at once
    leace = features - (features - features.mean(0)) @ whiten @ named @ colour
    torch.testing.assert_close(erased, leace, atol=0.02, rtol=0)
    otherwise = features - (features - features.mean(0)) @ torch.linalg.pinv(means) @ means
    assert (erased - features).square().mean() < (otherwise - features).square().mean()


@pytest.mark.parametrize("kind", ["class", "continuous", "none"])
@pytest.mark.parametrize(("samples", "size", "clusters"), [(300, 16, 2), (340, 24, 12), (120, 150, 6)])
def test_differences_that_chance_makes_are_left_alone(kind, samples, size, clusters):
    """Small clusters, and more features than samples, included; one set in twenty may be taken for more than that."""
    share = 0.6 ** torch.arange(clusters)
    found, sets = 0, 100
    for _ in range(sets):
        features = torch.randn(samples, size).double() @ torch.randn(size, size).double()
        cluster = torch.multinomial(share, samples, replacement=True).clamp(max=clusters - 1)
        label = (torch.rand(samples) < 0.5).long()
        age = cluster + torch.randn(samples)
        features[:, 0] += 3 * (age if kind == "continuous" else label)
        options = {"class": {"num_classes": 2}, "continuous": {"num_values": 1}, "none": {}}[kind]
        if kind == "none":
            features[:, 0] = torch.randn(samples)
        given = {"class": label, "continuous": age, "none": None}[kind]
        found += int(fit_eraser(sums_of(features, cluster, given, **options)).rank > 0)
    assert found <= 13  # of 100 at 5 %, more would be one set of tests in 1500


def test_a_weak_difference_among_many_samples_is_found_and_no_more():
    cluster = torch.arange(20_000) % 5
    features = torch.randn(20_000, 30)
    features[:, 3] += 0.2 * (cluster == 2)
    assert fit_eraser(sums_of(features, cluster)).rank == 1
    assert fit_eraser(sums_of(features, cluster), above_noise=False).rank == 4


def test_units_that_are_dead_or_doubled_are_no_obstacle():
    features, cluster, label = draw()
    features = torch.cat([features, features[:, :2], torch.full((SAMPLES, 2), 7.0)], dim=1)
    erased = fit_eraser(sums_of(features, cluster, label, num_classes=2))(features)
    assert largest_difference(erased[label == 0], cluster[label == 0]) < 1e-8
    constant = torch.ones(SAMPLES, 5)
    assert fit_eraser(sums_of(constant, cluster)).rank == 0


def test_what_tells_the_clusters_in_a_unit_that_hardly_varies_is_erased_too():
    features, cluster, label = draw()
    features[:, 5] = 1e-7 * features[:, 5] + cluster  # almost the name of the cluster
    erased = fit_eraser(sums_of(features, cluster, label, num_classes=2))(features)
    assert largest_difference(erased[label == 0], cluster[label == 0]) < 1e-8


def test_units_of_another_scale_make_no_difference():
    features, cluster, label = draw()
    scale = torch.logspace(-4, 4, SIZE).double()
    erased, other = (fit_eraser(sums_of(x, cluster, label, num_classes=2))(x) for x in (features, features * scale))
    torch.testing.assert_close(other / scale, erased, atol=1e-6, rtol=0)


def test_unknown_clusters_and_labels_say_how_features_vary_and_no_more():
    features, cluster, label = draw()
    more = torch.randn(500, SIZE).double()
    unknown = torch.full((500,), -1)
    sums = sums_of(features, cluster, label, num_classes=2)
    before = fit_eraser(sums)
    sums.update(more, unknown, torch.zeros(500).long())
    sums.update(more + 1, unknown + 1, unknown)
    eraser = fit_eraser(sums)
    assert not torch.allclose(eraser.matrix, before.matrix)
    erased = eraser(features)
    assert largest_difference(erased[label == 1], cluster[label == 1]) < 1e-10


def test_at_most_half_of_the_features_are_erased_and_said_so():
    features, cluster = torch.randn(400, 6) + 2 * torch.eye(6)[torch.arange(400) % 6], torch.arange(400) % 6
    with pytest.warns(UserWarning, match="5 directions .* erased are the strongest 3, half of the 6 features"):
        assert fit_eraser(sums_of(features, cluster)).rank == 3


def test_a_label_that_is_the_cluster_cannot_be_kept_and_is_said_so():
    _, cluster, label = draw(20_000)
    features = torch.randn(20_000, SIZE).double()
    features[:, 0] += 5 * label + 5 * (cluster > 1)
    sums = sums_of(features, cluster, label, num_classes=2)
    with pytest.warns(UserWarning, match="differ along what tells the label"):
        eraser = fit_eraser(sums, within_label=False)
    torch.testing.assert_close(eraser.matrix, fit_eraser(sums, within_label=False, keep_label=False).matrix)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_eraser(sums, within_label=False, keep_label=False)


@pytest.mark.parametrize(
    ("features", "cluster", "label", "message"),
    [
        (torch.full((8, 3), torch.nan), torch.arange(8) % 2, torch.zeros(8).long(), "not finite"),
        (torch.randn(8, 3), torch.tensor([0, -1] * 4), torch.zeros(8).long(), "at least two known clusters"),
        (torch.randn(8, 3), torch.arange(8) % 2, torch.arange(8) % 2, "no class has samples of two clusters"),
    ],
)
def test_sums_that_tell_nothing_of_clusters_are_refused(features, cluster, label, message):
    sums = FeatureSums(3, 2, num_classes=2)
    sums.update(features, cluster, label)
    with pytest.raises(ValueError, match=message):
        fit_eraser(sums)


def test_few_samples_show_nothing_beyond_chance():
    sums = FeatureSums(16, 2)
    sums.update(torch.randn(3, 16), torch.tensor([0, 1, 1]))
    assert isinstance(fit_eraser(sums), ClusterEraser) and fit_eraser(sums).rank == 0
