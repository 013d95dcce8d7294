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

"""What a network is told of the spirals beside their points: names of the clusters and of the features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_armed.studies.spirals.simulator import read_points

__all__ = ["cluster_names", "feature_names", "points_to_predict"]


def cluster_names(partitions: Mapping[str, Any]) -> list[str]:
    """
    Names of the clusters in the order of their index: the numbers that the simulation gave them.

    Args:
        partitions: from :py:func:`monai_armed.studies.spirals.simulator.spiral_partitions`.
    """
    return [str(name) for name in partitions["clusters"]]


def feature_names(partitions: Mapping[str, Any]) -> list[str]:
    """Names of the features of the training points: x1 and x2, and in simulation 3 the probes x3 and x4."""
    return [f"x{k + 1}" for k in range(len(partitions["train"][0]["image"]))]


def points_to_predict(
    path: str | Path | None, features: Sequence[str], partitions: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """
    Points to be predicted, as a MONAI data list.

    Args:
        path: CSV file, see :py:func:`monai_armed.studies.spirals.simulator.read_points`; None: the test points.
        features: names of the model's features.
        partitions: the simulated points.

    Returns:
        the points, each with the number of its row as ``file``.

    Raises:
        ValueError: when the points have another number of features than the model.
    """
    points = partitions["test"] if path is None else read_points(path)
    if (found := len(points[0]["image"])) != len(features):
        raise ValueError(
            f"the points of {path or 'the simulation'} have {found} features, the model was trained on "
            f"{len(features)}, {', '.join(features)}: give these columns alone."
        )
    return [{**item, "file": str(row)} for row, item in enumerate(points)]
