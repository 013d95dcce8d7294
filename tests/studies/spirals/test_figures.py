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

from monai_armed.studies.spirals.figures import plot_decision_boundaries, plot_spiral_data
from monai_armed.studies.spirals.simulator import simulate_spirals, spiral_bayes_posterior


@pytest.mark.parametrize("simulation, num_clusters, num_panels", [(1, 10, 11), (3, 10, 12), (2, 3, 4)])
def test_data_panels_hold_every_point(simulation, num_clusters, num_panels, tmp_path):
    data = simulate_spirals(simulation, num_clusters=num_clusters, samples_per_cluster=30)
    figure = plot_spiral_data(data, "title")
    assert len(figure.axes) == num_panels
    shown = [len(panel.collections[0].get_offsets()) for panel in figure.axes]
    assert sorted(shown) == [30] * num_clusters + [30 * num_clusters] * (num_panels - num_clusters)
    figure.savefig(tmp_path / "data.png")


def contour_vertices(panel):
    (contour,) = [c for c in panel.collections if hasattr(c, "levels")]
    return np.concatenate([path.vertices for path in contour.get_paths()])


def test_the_learned_boundary_is_where_the_predictor_says():
    data = simulate_spirals(1, samples_per_cluster=30)
    figure = plot_decision_boundaries({"line": lambda x, j: 1 / (1 + np.exp(-(x[:, 0] - 0.1 * j)))}, data, [2, 5])
    for panel, j in zip(figure.axes, (2, 5)):
        np.testing.assert_allclose(contour_vertices(panel)[:, 0], 0.1 * j, atol=1e-3)


def test_the_true_boundary_lies_between_the_classes():
    data = simulate_spirals(1, samples_per_cluster=50, seed=1)
    j = int(data.radius.argmax())
    figure = plot_decision_boundaries({"-": lambda x, j: np.full(len(x), 0.3)}, data, [j])
    first, second = (line.get_xydata()[100:250] for line in figure.axes[0].lines)  # off the centre and the ends
    for truth, sign in ((first, 1), (second, -1)):
        sides = []
        for angle in (-0.5, 0.5):
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            x = truth @ turn.T
            sides.append(spiral_bayes_posterior(x, np.full(len(x), j), data.radius, data.class0_ratio) > 0.5)
        assert (sides[0] == (sign > 0)).all() and (sides[1] == (sign < 0)).all()


def test_the_probes_are_held_at_the_clusters_mean_and_defaults_span_the_radii():
    data, seen = simulate_spirals(3, samples_per_cluster=50), {}

    def predict(x, j):
        seen[j] = x[:, 2:]
        return np.full(len(x), 0.2)

    plot_decision_boundaries({"constant": predict}, data, resolution=10)
    assert len(seen) == 3 and {int(data.radius.argmin()), int(data.radius.argmax())} < set(seen)
    for j, probes in seen.items():
        np.testing.assert_allclose(probes, np.tile(data.x[data.cluster == j, 2:].mean(0), (100, 1)), rtol=1e-5)


def test_bad_input():
    data = simulate_spirals(1, samples_per_cluster=10)
    with pytest.raises(ValueError, match=r"no clusters \[10\]: the data have 0 to 9"):
        plot_decision_boundaries({"a": lambda x, j: x[:, 0]}, data, [10])
    with pytest.raises(ValueError, match=r"predictor 'a' gave the shape \(22500, 2\)"):
        plot_decision_boundaries({"a": lambda x, j: x}, data, [0])
