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

"""Pictures of the spiral study: the data (Fig. S2) and the decision boundaries per cluster (Fig. 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from monai.utils import optional_import

from monai_armed.studies.spirals.simulator import SpiralData, spiral_curve

if TYPE_CHECKING:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
else:
    matplotlib, _ = optional_import("matplotlib")
    Figure, _ = optional_import("matplotlib.figure", name="Figure")
    Line2D, _ = optional_import("matplotlib.lines", name="Line2D")

__all__ = ["plot_decision_boundaries", "plot_spiral_data"]

CLASS_COLORS = ("#1f77b4", "#ff7f0e")
TRUTH_COLOR = "#2a8a4a"


def plot_spiral_data(data: SpiralData, title: str = "") -> Figure:
    """All clusters in one panel, coloured by cluster, and each cluster in its own, coloured by class (Fig. S2).

    Where the data have the probes X3 and X4, a further panel shows them, coloured by cluster.

    Args:
        data: the simulated points.
        title: title of the figure.
    """
    num_clusters = len(data.radius)
    colors = matplotlib.colormaps["tab10" if num_clusters <= 10 else "viridis"].resampled(num_clusters)(
        np.arange(num_clusters)
    )
    num_columns = max(1, -(-num_clusters // 2))
    large = ["all", "probes"] if data.x.shape[1] > 2 else ["all"]
    small: list[list[Any]] = [
        [j if j < num_clusters else "." for j in range(r * num_columns, (r + 1) * num_columns)] for r in (0, 1)
    ]
    layout: list[Any] = [[name for name in large for _ in (0, 1)] + row for row in small]
    figure = Figure(figsize=(1.6 * len(layout[0]), 3.6), layout="constrained")
    panels = figure.subplot_mosaic(layout)
    order = np.random.RandomState(0).permutation(len(data.x))  # so that no cluster or class hides the others
    x, y, cluster = data.x[order], data.y[order].astype(int), data.cluster[order].astype(int)

    panels["all"].scatter(x[:, 0], x[:, 1], s=2, c=colors[cluster], linewidths=0)
    panels["all"].set(title="all clusters, by cluster", xlabel="$X_1$", ylabel="$X_2$", aspect="equal")
    if "probes" in panels:
        panels["probes"].scatter(x[:, 2], x[:, 3], s=2, c=colors[cluster], linewidths=0)
        panels["probes"].set(title="probes, by cluster", xlabel="$X_3$", ylabel="$X_4$", aspect="equal")
    limit = _limit(data)
    for j in range(num_clusters):
        inside = cluster == j
        _class_points(panels[j], x[inside], y[inside])
        panels[j].set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xticks=[], yticks=[])
        panels[j].set_title(f"{j}: r = {data.radius[j]:.2f}", fontsize=9, color=colors[j], fontweight="bold")
        if "probes" in panels:
            panels[j].set_xlabel(f"{100 * data.class0_ratio[j]:.0f} % y = 0", fontsize=8)
    keys = [Line2D([], [], marker="o", linestyle="", color=color) for color in CLASS_COLORS]
    figure.legend(keys, ["y = 0", "y = 1"], loc="outside right upper", frameon=False, fontsize=9)
    figure.suptitle(title)
    return figure


def plot_decision_boundaries(
    predictors: Mapping[str, Callable[[np.ndarray, int], np.ndarray]],
    data: SpiralData,
    clusters: Sequence[int] | None = None,
    resolution: int = 150,
) -> Figure:
    """Decision boundary of each model in some clusters (black) against the true one (green, dashed), as Fig. 2.

    The true boundary is the midpoint between the two spirals. Features after X1 and X2 are held at the cluster's mean.

    Args:
        predictors: by name, ``f(x, cluster_index)`` that returns P(y = 1) (N,) for features (N, F) of one cluster.
        data: the simulated points, drawn behind the boundaries.
        clusters: clusters to show, one a row; by default those of the smallest, the median and the largest radius.
        resolution: points along each side of the grid on which the models are evaluated.

    Raises:
        ValueError: when a cluster does not exist, or a predictor's output has the wrong shape.
    """
    if clusters is None:
        by_radius = np.argsort(data.radius)
        clusters = list(dict.fromkeys(by_radius[[0, len(by_radius) // 2, -1]].tolist()))
    if unknown := [j for j in clusters if not 0 <= j < len(data.radius)]:
        raise ValueError(f"no clusters {unknown}: the data have 0 to {len(data.radius) - 1}.")
    figure = Figure(figsize=(2.3 * len(predictors) + 0.6, 2.3 * len(clusters) + 0.5), layout="constrained")
    panels = figure.subplots(len(clusters), len(predictors), squeeze=False, sharex=True, sharey=True)
    limit = _limit(data)
    side = np.linspace(-limit, limit, resolution)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    for row, j in enumerate(clusters):
        inside = data.cluster == j
        others = np.broadcast_to(data.x[inside, 2:].mean(0), (len(grid), data.x.shape[1] - 2))
        features = np.concatenate([grid, others], axis=1).astype(np.float32)
        for panel, (name, predict) in zip(panels[row], predictors.items()):
            probability = np.asarray(predict(features, j))
            if probability.shape != (len(grid),):
                raise ValueError(f"predictor '{name}' gave the shape {probability.shape}, expected ({len(grid)},).")
            _boundary_panel(panel, data, j, side, probability.reshape(resolution, resolution))
            if row == 0:
                panel.set_title(name, fontsize=10)
        panels[row, 0].set_ylabel(f"cluster {j}\nr = {data.radius[j]:.2f}", fontsize=9)
    keys = [Line2D([], [], color="black"), Line2D([], [], color=TRUTH_COLOR, linestyle="--")]
    figure.legend(keys, ["learned boundary", "true boundary"], loc="outside lower center", ncols=2, frameon=False)
    return figure


def _boundary_panel(panel: Axes, data: SpiralData, j: int, side: np.ndarray, probability: np.ndarray) -> None:
    inside = data.cluster == j
    _class_points(panel, data.x[inside], data.y[inside].astype(int))
    if probability.min() < 0.5 < probability.max():  # one class everywhere has no boundary
        panel.contour(side, side, probability, levels=[0.5], colors="black", linewidths=1.5)
    t = np.linspace(0, 2 * np.pi, 300)
    for phase in (-np.pi / 2, np.pi / 2):
        panel.plot(*spiral_curve(t, data.radius[j], phase).T, color=TRUTH_COLOR, linestyle="--", linewidth=1.5)
    limit = side[-1]
    panel.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xticks=[], yticks=[])


def _class_points(panel: Axes, x: np.ndarray, y: np.ndarray) -> None:
    panel.scatter(x[:, 0], x[:, 1], s=2, c=np.array(CLASS_COLORS)[y], alpha=0.5, linewidths=0)


def _limit(data: SpiralData) -> float:
    return 1.05 * float(np.abs(data.x[:, :2]).max())
