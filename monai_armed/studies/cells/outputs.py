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

"""What a network makes of one partition of cell images: a table by frame, latents, and the images themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from monai_armed.metrics.cluster_separation import mean_by_group
from monai_armed.networks.nets.armed_aec import ARMEDAEC

__all__ = ["CELL", "CellOutputs", "run_cells", "split"]

CELL = ["batch", "cell"]


def split(values: np.ndarray) -> list[torch.Tensor]:
    """Pieces of an array, (64 or fewer, ...)."""
    return list(torch.tensor(values).split(64))


@dataclass
class CellOutputs:
    """
    What the network makes of one partition: tables by frame, latents, and the images themselves. A cell is a cell of
    its batch: others may number theirs alike.
    """

    rows: pd.DataFrame
    latent: np.ndarray
    images: np.ndarray

    @property
    def cells(self) -> pd.DataFrame:
        """A row for each cell, with the means over its frames; in the order of :py:meth:`latents`."""
        return self.rows.groupby(CELL).mean(numeric_only=True)

    def latents(self) -> np.ndarray:
        """Mean latent of each cell."""
        return mean_by_group(self.latent, self.rows.groupby(CELL).ngroup().to_numpy())[0]

    def clusters(self) -> np.ndarray:
        """Cluster index of each cell."""
        return self.cells["cluster"].to_numpy().astype(int)


@torch.no_grad()
def run_cells(network: ARMEDAEC, loader: Iterable[Mapping], device: torch.device, seed: int, name: str) -> CellOutputs:
    """
    Args:
        network: the network; every part of it is used.
        loader: batches of one partition, see :py:func:`monai_armed.studies.cells.evaluation.evaluate_cells`.
        device: where the network is.
        seed: seed of the clusters of the randomized prediction.
        name: of the partition, shown beside the progress bar.

    Returns:
        what the network makes of it.
    """
    generator = torch.Generator().manual_seed(seed)
    network.eval()
    tables, latents, images = [], [], []
    for batch in tqdm(loader, desc=name):
        x, cluster = batch["image"].to(device), batch["cluster"].to(device)
        drawn = torch.randint(network.num_clusters, cluster.shape, generator=generator).to(device)
        latent = network.encode(x, cluster)
        fixed = network.decode_fixed(latent)
        mixed = {"mixed": fixed, "randomized": fixed}
        table = {
            "file": batch["file"],
            "cell": batch["cell"],
            "batch": batch["batch"],
            "cluster": cluster.tolist(),
            "label": batch["label"].tolist(),
            "fixed": network.fixed.classify(latent)[:, 0].tolist(),
        }
        for prediction, z in (("mixed", cluster), ("randomized", drawn)):
            table[prediction] = network(x, z)[:, 0].tolist()
            if network.random is not None:
                mixed[prediction] = network.reconstruct(x, z)
        for prediction, made in {"fixed": fixed, **mixed}.items():
            table[f"{prediction}_error"] = (made - x).square().flatten(1).mean(1).tolist()
        tables.append(pd.DataFrame(table))
        latents.append(latent.cpu().numpy())
        images.append(x.cpu().numpy())
    rows = pd.concat(tables, ignore_index=True)
    return CellOutputs(rows, np.concatenate(latents), np.concatenate(images))
