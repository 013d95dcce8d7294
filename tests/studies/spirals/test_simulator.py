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

import os
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate

from monai_armed.studies.spirals.simulator import (
    SpiralData,
    simulate_spirals,
    spiral_bayes_accuracy,
    spiral_bayes_posterior,
    spiral_curve,
)

TEST_DATA = Path(os.environ.get("MONAI_ARMED_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))
SEED48 = TEST_DATA / "spirals_seed48"


@pytest.mark.parametrize("simulation, features", [(1, 2), (2, 2), (3, 4)])
def test_shapes_types_and_exact_class_counts(simulation, features):
    data = simulate_spirals(simulation, num_clusters=5, samples_per_cluster=200, seed=3)
    assert data.x.shape == (1000, features) and data.x.dtype == np.float32
    assert np.bincount(data.cluster).tolist() == [200] * 5
    for j in range(5):
        share = np.mean(data.y[data.cluster == j] == 0)
        assert abs(share - data.class0_ratio[j]) <= 0.5 / 200
    assert (data.class0_ratio == 0.5).all() == (simulation != 3)


def test_distributions_of_the_drawn_truth():
    r1, r2 = (simulate_spirals(s, num_clusters=4000, samples_per_cluster=2).radius for s in (1, 2))
    assert abs(r1.mean() - 1.0) < 0.02 and abs(r1.std() - 0.3) < 0.01
    assert abs(r2.mean()) < 0.05 and abs(r2.std() - 1.0) < 0.03
    ratio = simulate_spirals(3, num_clusters=4000, samples_per_cluster=2).class0_ratio
    assert abs(ratio.mean() - 0.5) < 0.01 and abs(ratio.std() - 0.1) < 0.005
    assert ratio.min() >= 0.1 and ratio.max() <= 0.9


def test_points_scatter_around_their_own_spiral_with_the_noise_asked_for():
    data = simulate_spirals(1, num_clusters=2, samples_per_cluster=3000, noise=0.02)
    t = np.linspace(0, 2 * np.pi, 2000)
    for j, label in ((0, 0), (1, 1)):
        points = data.x[(data.cluster == j) & (data.y == label)]
        curve = spiral_curve(t, data.radius[j], np.pi * label)
        nearest = np.sqrt(((points[:, None] - curve) ** 2).sum(-1)).min(1)
        # the distance to a curve is one coordinate of the noise
        assert abs(np.sqrt(np.mean(nearest**2)) - 0.02) < 0.002


def test_a_negative_radius_exchanges_the_classes():
    t = np.linspace(0, 6, 7)
    np.testing.assert_allclose(spiral_curve(t, -1.3, 0.0), spiral_curve(t, 1.3, np.pi), atol=1e-12)


def test_probes_depend_on_the_cluster_and_not_on_the_class():
    data = simulate_spirals(3, num_clusters=4, samples_per_cluster=5000, seed=1)
    for j in range(4):
        for label in (0, 1):
            probes = data.x[(data.cluster == j) & (data.y == label), 2:]
            np.testing.assert_allclose(probes.mean(0), data.class0_ratio[j], atol=0.02)
            np.testing.assert_allclose(probes.std(0), 0.2, atol=0.02)


def test_same_seed_same_data_and_simulations_1_and_3_share_radii():
    a, b, c = simulate_spirals(1, seed=7), simulate_spirals(1, seed=7), simulate_spirals(1, seed=8)
    assert a.x.tobytes() == b.x.tobytes()
    assert not np.array_equal(a.x, c.x)
    np.testing.assert_array_equal(a.radius, simulate_spirals(3, seed=7).radius)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"simulation": 4}, "simulation must be 1, 2 or 3, got 4"),
        ({"num_clusters": 0}, "num_clusters >= 1"),
        ({"samples_per_cluster": 1}, "samples_per_cluster >= 2"),
        ({"noise": 0.0}, "noise must be positive, got 0.0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        simulate_spirals(**arguments)


def test_save_and_load(tmp_path):
    data = simulate_spirals(3, num_clusters=3, samples_per_cluster=20)
    data.save(tmp_path / "sim3.npz")
    again = SpiralData.load(tmp_path / "sim3.npz")
    for name in ("x", "y", "cluster", "radius", "class0_ratio"):
        np.testing.assert_array_equal(getattr(again, name), getattr(data, name))


def test_load_says_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match="no spiral data at"):
        SpiralData.load(tmp_path / "absent.npz")
    np.savez(tmp_path / "part.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match=r"lacks the arrays .*class0_ratio"):
        SpiralData.load(tmp_path / "part.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ValueError, match=r"not an \.npz archive"):
        SpiralData.load(tmp_path / "text.npz")
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"not an \.npz archive"):
        SpiralData.load(tmp_path / "array.npy")


def test_datalist_has_one_item_a_point():
    data = simulate_spirals(1, num_clusters=2, samples_per_cluster=4)
    items = data.datalist()
    assert len(items) == 8 and items[7]["cluster"] == 1
    assert items[7]["label"].shape == (1,) and items[7]["label"].dtype == np.float32
    np.testing.assert_array_equal(items[7]["image"], data.x[7])


def test_posterior_equals_adaptive_quadrature():
    x = np.array([[0.3, 0.2], [-0.5, 0.9], [0.05, -0.4], [1.15, 0.1]])
    radius, ratio, noise = 1.2, 0.3, 0.1

    def likelihood(point, phase):
        def density(t):
            return np.exp(-((point - spiral_curve(np.array(t), radius, phase)) ** 2).sum() / (2 * noise**2))

        return integrate.quad(density, 0, 2 * np.pi, limit=500, epsabs=0, points=np.linspace(0.1, 6.2, 50))[0]

    expected = []
    for point in x:
        class0, class1 = ratio * likelihood(point, 0.0), (1 - ratio) * likelihood(point, np.pi)
        expected.append(class1 / (class0 + class1))
    actual = spiral_bayes_posterior(x, np.zeros(4, int), np.array([radius]), np.array([ratio]), noise)
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_posterior_is_calibrated_and_ignores_the_probes():
    data = simulate_spirals(3, samples_per_cluster=4000, seed=2)
    posterior = spiral_bayes_posterior(data.x, data.cluster, data.radius, data.class0_ratio)
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        inside = (posterior >= low) & (posterior < low + 0.2)
        error = data.y[inside].mean() - posterior[inside].mean()
        assert abs(error) < 4 * np.sqrt(0.25 / inside.sum())
    without = spiral_bayes_posterior(data.x[:, :2], data.cluster, data.radius, data.class0_ratio)
    np.testing.assert_array_equal(posterior, without)


def test_posterior_names_a_cluster_without_radius():
    with pytest.raises(ValueError, match="cluster holds 0 to 3, but radius has 2 entries"):
        spiral_bayes_posterior(np.zeros((2, 2)), np.array([0, 3]), np.ones(2), np.full(2, 0.5))


@pytest.mark.skipif(not SEED48.is_dir(), reason="spirals_seed48 not found: set MONAI_ARMED_TEST_DATA to its folder")
@pytest.mark.parametrize("simulation, ceiling", [(1, 0.908), (2, 0.874), (3, 0.918)])
def test_ceilings_on_the_published_draw(simulation, ceiling):
    data = SpiralData.load(SEED48 / f"sim{simulation}.npz")
    assert abs(spiral_bayes_accuracy(data) - ceiling) < 0.0005
