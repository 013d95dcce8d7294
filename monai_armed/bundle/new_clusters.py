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

"""What unseen clusters say of predictions for new ones: their sets, how often these cover, and the calibration."""

from __future__ import annotations

import pandas as pd
import torch

from monai_armed.metrics.calibration import Calibration, calibration_error
from monai_armed.metrics.prediction_sets import leave_one_cluster_out, set_columns

__all__ = ["calibrate_table"]

LEVEL = 0.9


def calibrate_table(
    table: pd.DataFrame, cluster: str, score: str = "score"
) -> tuple[pd.DataFrame, dict[str, float], Calibration | None]:
    """
    Calibrate one prediction on unseen clusters. Each cluster's sets are by the calibration on all others, so that the
    coverage is that of new clusters; the calibration returned is on all.

    Args:
        table: predictions of unseen clusters: ``label``, below 0 where it is not known, the logit, and the cluster.
        cluster: the column of the cluster's name.
        score: the column of the logit.

    Returns:
        the table with the columns of :py:func:`monai_armed.metrics.prediction_sets.set_columns`, empty where the label
        is not known; ``coverage``, the share of samples whose set holds their label, and ``set_size``, both means over
        clusters, ``calibration_error`` and ``calibrated_error``, without and with the temperature; and the calibration.
        Where the clusters are too few, the table as it is, no metrics and None; a sentence says so.
    """
    known = table[table["label"] >= 0]
    clusters, label = known[cluster].astype(str).tolist(), torch.tensor(known["label"].tolist())
    logits = torch.tensor(known[score].tolist()).reshape(-1, 1)
    try:
        calibration = Calibration(logits, label, clusters, LEVEL, classification=True)
        probability, sets = leave_one_cluster_out(logits, label, clusters, LEVEL)
    except ValueError as error:
        print(f"predictions of new clusters are not calibrated, each unseen {cluster} by all others: {error}")
        return table, {}, None
    columns = pd.DataFrame(set_columns(probability, sets), index=known.index)
    covered = sets.gather(1, label[:, None])[:, 0].numpy()
    of_clusters = pd.DataFrame({"coverage": covered, "set_size": sets.sum(1).numpy()}).groupby(clusters).mean()
    plain = torch.cat([1 - logits.sigmoid(), logits.sigmoid()], 1)
    metrics = {
        **of_clusters.mean().to_dict(),
        "calibration_error": calibration_error(plain, label),
        "calibrated_error": calibration_error(probability, label),
    }
    return table.join(columns), metrics, calibration
