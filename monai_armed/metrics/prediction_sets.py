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

"""Sets of classes of a whole table of predictions: what each held-out cluster would get, and the columns for it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import torch

from .calibration import Calibration

__all__ = ["leave_one_cluster_out", "set_columns"]


def leave_one_cluster_out(
    logits: torch.Tensor, label: torch.Tensor, clusters: Sequence[Hashable], level: float = 0.9
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    What each held-out cluster would get if it were new: calibrated on all others, so that coverage can be measured on
    the clusters that calibrate.

    Args:
        logits: (N, K), K = 1 for two classes, of held-out clusters' samples.
        label: class of each sample, (N,).
        clusters: cluster of each sample.
        level: wanted coverage.

    Returns:
        probability of each class at the others' temperature, (N, K), two of one logit, and which classes are in each
        sample's set, bool, of the same shape.

    Raises:
        ValueError: as :py:class:`Calibration`, of one cluster fewer.
    """
    own = np.unique(np.asarray(clusters), return_inverse=True)[1]
    classes = max(2, logits.shape[1])
    probability, sets = torch.zeros(len(logits), classes).to(logits), torch.zeros(len(logits), classes).bool()
    for j in range(own.max() + 1):
        inside, others = (torch.as_tensor(part) for part in (own == j, own != j))
        calibration = Calibration(logits[others], label[others], own[own != j].tolist(), level, classification=True)
        probability[inside] = calibration.probabilities(logits[inside])
        sets[inside] = calibration.sets(logits[inside]).cpu()
    return probability, sets


def set_columns(probability: torch.Tensor, sets: torch.Tensor) -> dict[str, list]:
    """
    Columns of a table of predictions.

    Args:
        probability: of two classes, (N, 2), calibrated.
        sets: which classes are in each sample's set, bool (N, 2).

    Returns:
        ``calibrated_probability``, of class 1, and ``prediction_set``, such as ``"{0, 1}"``: what cannot be told apart.
    """
    names = ["{" + ", ".join(str(k) for k, inside in enumerate(row) if inside) + "}" for row in sets.tolist()]
    return {"calibrated_probability": probability[:, 1].tolist(), "prediction_set": names}
