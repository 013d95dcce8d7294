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

"""Sets of phenotypes that cover for cells of new batches, from unseen batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from monai_armed.bundle.new_clusters import calibrate_table
from monai_armed.metrics.calibration import Calibration
from monai_armed.metrics.calibration_file import write_calibrations
from monai_armed.metrics.prediction_sets import set_columns

__all__ = ["calibrate_cells", "with_sets"]


def calibrate_cells(
    rows: pd.DataFrame, predictions: Sequence[str], folder: str | Path, ckpt_path: str | Path | None = None
) -> tuple[pd.DataFrame, dict[str, dict[str, float]]]:
    """
    Calibrate predictions on cells of unseen batches, see :py:func:`monai_armed.bundle.new_clusters.calibrate_table`.

    Args:
        rows: a row an image: ``batch``, ``label`` and the logit of each prediction by its name.
        predictions: names of the predictions, the network's own first.
        folder: where ``calibration.json`` is written.
        ckpt_path: the model's file, which it is for; without it none is written.

    Returns:
        the rows with the columns of each prediction's sets, after its name, and the metrics of each; the rows alone
        where the batches are too few.
    """
    found, calibrations, wide = {}, {}, rows
    for prediction in predictions:
        table, found[prediction], calibration = calibrate_table(rows, "batch", prediction)
        if calibration is None:
            return rows, {}
        calibrations[prediction] = calibration
        wide = wide.join(table[table.columns.difference(rows.columns)].add_prefix(f"{prediction}_"))
    if ckpt_path is not None:
        print(f"calibrated for new batches: {write_calibrations(calibrations, ckpt_path, folder)}")
    return wide, found


def with_sets(table: pd.DataFrame, logits: torch.Tensor, calibration: Calibration | None) -> pd.DataFrame:
    """
    Add the sets of images of unknown batches.

    Args:
        table: a row an image, ``batch_known`` among its columns; of one that is ``unlike_training`` no set is promised.
        logits: of the images, (N, 1) or more, the first of which is the phenotype's.
        calibration: of the network's own prediction; None: the table stays as it is.
    """
    if calibration is None:
        return table
    columns = set_columns(calibration.probabilities(logits[:, :1]), calibration.sets(logits[:, :1]))
    without = table["batch_known"] | table.get("unlike_training", False)
    return table.assign(**{name: pd.Series(values).mask(without) for name, values in columns.items()})
