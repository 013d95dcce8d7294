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

"""The simulated spirals of the paper (Supplement 3.2, Fig. S2) and their Bayes-optimal ceiling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import CommonKeys
from scipy.special import expit, logsumexp
from sklearn.model_selection import train_test_split

from monai_armed.data.held_out import held_out
from monai_armed.data.sample_marks import study_name
from monai_armed.studies.spirals.point_files import read_arrays, read_table

__all__ = [
    "SpiralData",
    "read_points",
    "simulate_spirals",
    "spiral_bayes_accuracy",
    "spiral_bayes_posterior",
    "spiral_curve",
    "spiral_partitions",
]

RADIUS_MEAN_SD = {1: (1.0, 0.3), 2: (0.0, 1.0), 3: (1.0, 0.3)}
CLASS_RATIO_MEAN_SD, CLASS_RATIO_RANGE = (0.5, 0.1), (0.1, 0.9)
PROBE_SD = 0.2
NEW_CLUSTERS, NEW_POINTS, NEW_SEED = 40, 100, 1_000_000
KEYS = {"clusters": "clusters", "cluster": "cluster", "subject": "index"}


@dataclass(frozen=True)
class SpiralData:
    """One simulated spiral data set, with the truth it was drawn from.

    Args:
        x: features (N, 2), or (N, 4) where the confounded probes X3 and X4 are added; float32.
        y: class of each point (N,), 0 or 1.
        cluster: cluster index of each point (N,), 0..C-1.
        radius: true spiral radius of each cluster (C,).
        class0_ratio: true share of y = 0 in each cluster (C,).
    """

    x: np.ndarray
    y: np.ndarray
    cluster: np.ndarray
    radius: np.ndarray
    class0_ratio: np.ndarray

    def save(self, path: str | Path) -> None:
        """Write the arrays to a compressed ``.npz`` file whose keys are the field names."""
        with open(path, "wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: str | Path) -> SpiralData:
        """Read a file written by :py:meth:`save`.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: as :py:func:`monai_armed.studies.spirals.point_files.read_arrays` does.
        """
        return cls(**read_arrays(path, [f.name for f in fields(cls)]))

    def datalist(self) -> list[dict[str, Any]]:
        """The points as a MONAI data list: ``image`` (F,) float32, ``label`` (1,) float32, ``cluster`` int."""
        return [
            {CommonKeys.IMAGE: x, CommonKeys.LABEL: np.array([y], np.float32), "cluster": int(c)}
            for x, y, c in zip(self.x, self.y, self.cluster)
        ]


def read_points(path: str | Path) -> list[dict[str, Any]]:
    """A MONAI data list of what :py:func:`monai_armed.studies.spirals.point_files.read_table` reads."""
    x, cluster = read_table(path)
    label = np.zeros(1, np.float32)  # not known, and not used
    return [{CommonKeys.IMAGE: p, CommonKeys.LABEL: label, "cluster": int(c)} for p, c in zip(x, cluster)]


def spiral_curve(t: np.ndarray, radius: np.ndarray | float, phase: np.ndarray | float) -> np.ndarray:
    """Noise-free point of a spiral (Supplement 3.2).

    Args:
        t: angle in radians, 0 to 2 pi.
        radius: radius of the cluster's spiral at t = 2 pi; a negative one exchanges the two classes.
        phase: 0 for y = 0 and pi for y = 1; +-pi/2 gives the midpoint between the two, the true decision boundary.

    Returns:
        Coordinates with a last axis of 2.
    """
    r = radius * t / (2 * np.pi)
    return np.stack([-r * np.cos(t - phase), r * np.sin(t - phase)], axis=-1)


def simulate_spirals(
    simulation: int = 1, num_clusters: int = 10, samples_per_cluster: int = 1000, noise: float = 0.1, seed: int = 0
) -> SpiralData:
    """Draw one of the paper's three spiral simulations (Supplement 3.2).

    1: radius of cluster j ~ N(1, 0.3). 2: radius ~ N(0, 1), a negative one exchanges the classes. 3: as 1, with the
    share of y = 0 in cluster j rho_j ~ N(0.5, 0.1), clipped to [0.1, 0.9], and two probe features X3, X4 ~ N(rho_j,
    0.2) that tell of the class through the cluster only. (The paper prints rho_j ~ N(0, 0.1), but its own example
    has rho = 0.2 as 20 % of y = 0, so a mean of 0.5 is meant.) Second arguments are standard deviations.

    Class counts are exact: round(rho_j n) points of cluster j have y = 0. Points come sorted by cluster and class.
    NumPy's frozen legacy stream is drawn from, so the same seed gives the same data under every NumPy version.

    Args:
        simulation: 1, 2 or 3.
        num_clusters: number of clusters, C.
        samples_per_cluster: points in each cluster, n.
        noise: standard deviation of the Gaussian noise added to X1 and X2.
        seed: seed of the generator; simulations 1 and 3 with the same seed have the same radii.

    Raises:
        ValueError: when ``simulation`` is not 1, 2 or 3, a count is below its minimum, or ``noise`` is not positive.
    """
    if simulation not in RADIUS_MEAN_SD:
        raise ValueError(f"simulation must be 1, 2 or 3, got {simulation}.")
    if num_clusters < 1 or samples_per_cluster < 2:
        raise ValueError(
            f"need num_clusters >= 1 and samples_per_cluster >= 2, got {num_clusters} and {samples_per_cluster}."
        )
    if not noise > 0:
        raise ValueError(f"noise must be positive, got {noise}.")
    rng = np.random.RandomState(seed)
    radius = rng.normal(*RADIUS_MEAN_SD[simulation], num_clusters)
    ratio = np.full(num_clusters, 0.5)
    if simulation == 3:
        ratio = np.clip(rng.normal(*CLASS_RATIO_MEAN_SD, num_clusters), *CLASS_RATIO_RANGE)

    cluster = np.repeat(np.arange(num_clusters), samples_per_cluster)
    num_class0 = np.rint(ratio * samples_per_cluster)
    y = (np.tile(np.arange(samples_per_cluster), num_clusters) >= num_class0[cluster]).astype(np.int64)
    t = rng.uniform(0, 2 * np.pi, len(cluster))
    x = spiral_curve(t, radius[cluster], np.pi * y) + rng.normal(0, noise, (len(cluster), 2))
    if simulation == 3:
        x = np.concatenate([x, rng.normal(ratio[cluster][:, None], PROBE_SD, (len(cluster), 2))], axis=1)
    return SpiralData(x.astype(np.float32), y, cluster, radius, ratio)


def spiral_partitions(
    dataset: str | Path | None = None,
    simulation: int = 1,
    data_seed: int = 0,
    split_seed: int = 0,
    trained: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One simulation divided into training, validation and test points (80 / 10 / 10 % of each class in each cluster).

    Args:
        dataset: folder with ``sim1.npz``, ``sim2.npz`` and ``sim3.npz``; None: simulate.
        simulation: 1, 2 or 3, see :py:func:`simulate_spirals`.
        data_seed: seed of the simulation.
        split_seed: seed of the division.
        trained: what a model was trained on, from :py:func:`monai_armed.data.held_out.provenance`: test points are then
            those that it was not trained on, and all points of other data are unseen.

    Returns:
        ``"train"``, ``"val"``, ``"test"`` and ``"unseen"`` (empty but for other data than a model's), each a MONAI data
        list; ``"clusters"``, their names by index; ``"data"``, the :py:class:`SpiralData`; ``"study"``, which data
        these are; and with a model that is trained ``"new"``, points of further clusters of a simulation, whose
        ``site`` names them; of other data none.

    Raises:
        ValueError: when the points are too few for each class of each cluster to be divided, or a model was trained on
            all.
    """
    if dataset is None:
        data, draw = simulate_spirals(simulation, seed=data_seed), f"simulation {simulation}, draw {data_seed}"
    else:
        data, draw = SpiralData.load(Path(dataset) / f"sim{simulation}.npz"), None
    points = [{**point, "index": i} for i, point in enumerate(data.datalist())]
    study = draw or study_name(points, KEYS)
    about = {"clusters": [str(c) for c in np.unique(data.cluster)], "data": data, "study": study, "keys": KEYS}
    if trained is not None:
        parts = held_out(points, trained, study, KEYS)
        new = _new_clusters(simulation, data_seed) if draw and parts["test"] else []
        return {**parts, "new": new, **about, "clusters": list(trained["clusters"])}
    stratum = 2 * data.cluster + data.y
    index = np.arange(len(stratum))
    try:
        rest, test = train_test_split(index, test_size=0.1, stratify=stratum, random_state=split_seed)
        train, val = train_test_split(rest, test_size=1 / 9, stratify=stratum[rest], random_state=split_seed)
    except ValueError as e:
        raise ValueError(
            f"{len(points)} points of {len(np.unique(stratum))} classes of clusters are too few: {e}"
        ) from e
    parts = {"train": train, "val": val, "test": test}
    return {**{name: [points[i] for i in np.sort(part)] for name, part in parts.items()}, "unseen": [], **about}


def _new_clusters(simulation: int, data_seed: int) -> list[dict[str, Any]]:
    """Points of clusters that no network was trained on, drawn from the same law by a seed of their own."""
    data = simulate_spirals(simulation, NEW_CLUSTERS, NEW_POINTS, seed=NEW_SEED + data_seed)
    return [{**point, "site": f"new {point['cluster']}", "cluster": -1} for point in data.datalist()]


def spiral_bayes_posterior(
    x: np.ndarray, cluster: np.ndarray, radius: np.ndarray, class0_ratio: np.ndarray, noise: float = 0.1
) -> np.ndarray:
    """Bayes-optimal P(y = 1 | x, cluster) under the simulation's own law.

    The likelihood of a point under each noisy spiral, integrated over t ~ U(0, 2 pi) by the midpoint rule with steps
    of at most a tenth of the noise, times the cluster's class ratio. The probes X3 and X4 carry no information on the
    class once the cluster is known, so columns after the second are not used.

    Args:
        x: features (N, >= 2).
        cluster: cluster index (N,), 0..C-1.
        radius: radius of each cluster (C,).
        class0_ratio: share of y = 0 in each cluster (C,), strictly between 0 and 1.
        noise: standard deviation of the noise in X1 and X2.

    Returns:
        Probabilities (N,), float64.

    Raises:
        ValueError: when a cluster index has no radius.
    """
    x, cluster = np.asarray(x, np.float64)[:, :2], np.asarray(cluster, np.int64)
    if cluster.size and not 0 <= cluster.min() <= cluster.max() < len(radius):
        raise ValueError(f"cluster holds {cluster.min()} to {cluster.max()}, but radius has {len(radius)} entries.")
    posterior = np.empty(len(x))
    for j in np.unique(cluster):
        # the curve's speed is at most |r| sqrt(1 + 4 pi^2) / 2 pi = 1.013 |r| per radian
        steps = max(64, int(np.ceil(2 * np.pi * 1.013 * abs(radius[j]) / (0.1 * noise))))
        t = (np.arange(steps) + 0.5) * (2 * np.pi / steps)
        points = x[cluster == j]
        class0, class1 = (_log_likelihood(points, spiral_curve(t, radius[j], phase), noise) for phase in (0, np.pi))
        log_prior_odds = np.log1p(-class0_ratio[j]) - np.log(class0_ratio[j])
        posterior[cluster == j] = expit(class1 - class0 + log_prior_odds)
    return posterior


def spiral_bayes_accuracy(data: SpiralData, noise: float = 0.1) -> float:
    """Accuracy of the Bayes-optimal classifier on these points given their clusters: the ceiling of every table.

    Args:
        data: the simulated points with their true radii and class ratios.
        noise: standard deviation of the noise in X1 and X2.
    """
    posterior = spiral_bayes_posterior(data.x, data.cluster, data.radius, data.class0_ratio, noise)
    return float(np.mean((posterior > 0.5) == (data.y == 1)))


def _log_likelihood(points: np.ndarray, curve: np.ndarray, noise: float) -> np.ndarray:
    """Log of the Gaussian likelihood of points (N, 2), averaged over a curve (T, 2), up to a constant."""
    squares = (points**2).sum(1)[:, None] - 2 * points @ curve.T + (curve**2).sum(1)
    return np.asarray(logsumexp(-squares / (2 * noise**2), axis=1))
