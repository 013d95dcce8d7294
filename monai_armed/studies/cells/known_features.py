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

"""What a network's fixed latents and reconstructions hold of features of cells that biologists know."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import torch

from monai_armed.networks.nets.armed_aec import ARMEDAEC
from monai_armed.studies.cells.cell_features import cell_features, feature_correlations, feature_slopes
from monai_armed.studies.cells.outputs import CELL, CellOutputs, split

__all__ = ["known_features"]

_TRUTH = {"granule_brightness": "true_granules", "elongation": "true_elongation"}


@torch.no_grad()
def known_features(
    network: ARMEDAEC,
    outputs: Mapping[str, CellOutputs],
    simulated_dir: str | Path | None = None,
    device: str | torch.device = "cpu",
) -> pd.DataFrame:
    """
    Size, elongation, texture and more, measured in the images by
    :py:func:`monai_armed.studies.cells.cell_features.cell_features`: how well a ridge regression that is fitted on the
    training cells reads them from the fixed latents of others, and whether the fixed reconstruction keeps them. Images
    of different batches measure differently, and a latent without the batch does not hold that; on simulated cells
    the true brightness of the granules and the true elongation stand beside the measured ones.

    Args:
        network: the network, in evaluation mode.
        outputs: what it makes of the partition ``"train"`` and of others.
        simulated_dir: folder of the simulated study that the images are from, if they are.
        device: where the network is.

    Returns:
        a row for each other partition that is ``"test"`` or ``"unseen"`` and each feature: ``partition``, ``feature``,
        correlation ``r``, number of ``cells``, and for size and elongation ``slope``, see
        :py:func:`monai_armed.studies.cells.cell_features.feature_slopes`.
    """
    truth = None if simulated_dir is None else _truth(simulated_dir)
    by_frame = {name: cell_features(part.images) for name, part in outputs.items()}
    by_cell = {name: _by_cell(by_frame[name], part, truth) for name, part in outputs.items()}
    tables = []
    for name in [name for name in ("test", "unseen") if name in outputs]:
        part = outputs[name]
        found = feature_correlations(outputs["train"].latents(), by_cell["train"], part.latents(), by_cell[name])
        first = part.rows.drop_duplicates(CELL).index
        painted = [network.decode_fixed(z.to(device)).cpu() for z in split(part.latent[first])]
        slopes = feature_slopes(cell_features(torch.cat(painted).numpy()), by_frame[name].loc[first])
        tables.append(found.merge(slopes[["feature", "slope"]], how="left").assign(partition=name))
    return pd.concat(tables, ignore_index=True)[["partition", "feature", "r", "cells", "slope"]]


def _truth(folder: str | Path) -> pd.DataFrame:
    from monai_armed.studies.cells.simulator import SimulatedCells

    return SimulatedCells(folder).cell_truth.set_index("cell")[list(_TRUTH)].rename(columns=_TRUTH)


def _by_cell(features: pd.DataFrame, part: CellOutputs, truth: pd.DataFrame | None) -> pd.DataFrame:
    """Means over the frames of each cell in which it is found, in the order of its latents."""
    means = features.groupby([part.rows[key] for key in CELL]).mean()
    return means if truth is None else means.join(truth, on="cell")
