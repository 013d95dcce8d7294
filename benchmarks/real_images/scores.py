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

"""What a model is judged by, on the seen sources' test images and on the unseen source."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.metrics import log_loss, roc_auc_score

from monai_armed.audit.erased import within_site_auroc
from monai_armed.metrics.comparison import delong_interval
from monai_armed.metrics.leak import mean_cluster_leak

__all__ = ["Prediction", "score"]


class Prediction(NamedTuple):
    """Logits of the fixed effects on seen and unseen sources, and mixed ones on the seen; None without."""

    fixed: np.ndarray
    unseen: np.ndarray
    mixed: np.ndarray | None


def score(prediction: Prediction, parts: dict[str, pd.DataFrame]) -> dict[str, float]:
    """
    Args:
        prediction: of one model.
        parts: from :py:func:`dermoscopy.leave_one_out`.

    Returns:
        AUROC on seen sources (fixed, mixed), of pairs of images within one source, and on the unseen source; the leak,
        AUROC with which the fixed logit tells a source from the others among benign lesions (a logit that tells it with
        the opposite sign leaks as much: what is below .5 is folded to above it); log-loss and calibration error of the
        best that there is for a seen source; the limits of DeLong's 95 % interval of the unseen source's AUROC.
    """
    test, unseen = parts["test"], parts["unseen"]
    label, cluster = test["label"].to_numpy(), test["cluster"].to_numpy()
    auroc, low, high = delong_interval(unseen["label"].to_numpy(), prediction.unseen)
    best = prediction.fixed if prediction.mixed is None else prediction.mixed
    benign = label == 0
    return {
        "seen fixed": roc_auc_score(label, prediction.fixed),
        "seen mixed": np.nan if prediction.mixed is None else roc_auc_score(label, prediction.mixed),
        "within source": within_site_auroc(label, prediction.fixed, cluster),
        "leak": mean_cluster_leak(prediction.fixed[benign], cluster[benign]),
        "unseen": auroc,
        "log-loss": log_loss(label, expit(best)),
        "calibration error": _calibration_error(label, expit(best)),
        "unseen low": low,
        "unseen high": high,
    }


def _calibration_error(label: np.ndarray, probability: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error over bins of as many images each."""
    parts = np.array_split(np.argsort(probability), bins)
    return sum(len(part) * abs(label[part].mean() - probability[part].mean()) for part in parts) / len(label)
