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
from numpy.typing import ArrayLike
from sklearn.metrics import roc_auc_score, roc_curve

__all__ = ["youden_metrics"]


def youden_metrics(label: ArrayLike, score: ArrayLike) -> dict[str, float]:
    """
    AUROC, and balanced accuracy, sensitivity and specificity at the Youden point: the threshold with the largest sum
    of the last two *on these very samples*, as in Tables 3 and 4 of https://arxiv.org/abs/2202.11783. They flatter a
    little; AUROC does not.

    Args:
        label: true class (N,), 0 or 1.
        score: score of class 1 (N,), a probability or a logit.

    Raises:
        ValueError: when there is only one class, or a score is not finite.
    """
    label, score = np.asarray(label), np.asarray(score, dtype=float)
    if not np.isfinite(score).all():
        raise ValueError(f"{(~np.isfinite(score)).sum()} of {len(score)} scores are not finite.")
    if set(np.unique(label)) != {0, 1}:
        raise ValueError(f"both classes, 0 and 1, are needed for AUROC, got the labels {np.unique(label).tolist()}.")
    false_positive, true_positive, thresholds = roc_curve(label, score)
    best = int(np.argmax(true_positive - false_positive))
    return {
        "auroc": float(roc_auc_score(label, score)),
        "balanced_accuracy": float((true_positive[best] + 1 - false_positive[best]) / 2),
        "sensitivity": float(true_positive[best]),
        "specificity": float(1 - false_positive[best]),
        "threshold": float(thresholds[best]),
    }
