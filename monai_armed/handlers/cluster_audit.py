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

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader

from ..data.replaced_file import write_csv
from ..engines.prepare_batch import PrepareBatchCluster
from ..metrics.audit import LayerFeatures, audit_features, collect_features
from ..utils.parallel import is_main_process

__all__ = ["ClusterAudit"]

logger = logging.getLogger(__name__)

LEVEL = 0.05  # of the corrected p, at which a fresh classifier is said to name the cluster


class ClusterAudit:
    """
    Ignite handler that, when its engine is done, audits the network with
    :py:func:`monai_armed.metrics.audit.audit_features`: writes ``audit.csv`` and logs a sentence for each layer.

    Args:
        folder: where to write.
        network: the trained network.
        train_loader: batches that the fresh classifiers learn from.
        test_loader: batches of held-out samples of the same clusters.
        layers: names of the layers; by default those that the adversary sees.
        prepare_batch: takes input, label and cluster out of a batch; by default ``PrepareBatchCluster()``.
        device: where the network is.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        network: torch.nn.Module,
        train_loader: Iterable[Mapping],
        test_loader: Iterable[Mapping],
        layers: Sequence[str] | None = None,
        prepare_batch: PrepareBatchCluster | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.folder, self.network, self.loaders = Path(folder), network, (train_loader, test_loader)
        self.layers, self.prepare_batch, self.device = layers, prepare_batch, device

    def attach(self, engine: Engine) -> None:
        """Args: engine: a trainer, or an evaluator of a trained network."""
        engine.add_event_handler(Events.COMPLETED, self)

    def features(self) -> tuple[LayerFeatures, LayerFeatures]:
        """Features of the samples of both loaders, see :py:func:`monai_armed.metrics.audit.collect_features`."""
        train, test = (
            collect_features(self.network, loader, self.layers, self.prepare_batch, self.device)
            for loader in self.loaders
        )
        return train, test

    def __call__(self, engine: Engine) -> None:
        if not is_main_process():
            return
        if any(isinstance(loader, DataLoader) and not len(loader) for loader in self.loaders):
            logger.warning("there is no audit: it needs samples of seen clusters that were trained on, and others.")
            return
        table = audit_features(*self.features())
        for sentence in _sentences(table):
            logger.info(sentence)
        path = write_csv(table, self.folder / "audit.csv")
        logger.info(f"the audit is in {path}.")


def _sentences(table: pd.DataFrame) -> list[str]:
    """For each layer and class what the better of the fresh classifiers finds."""
    best = table.loc[table.groupby(["layer", "class"], sort=False)["balanced_accuracy"].idxmax()]
    sentences = []
    for row in best.to_dict("records"):
        where = "over all classes" if row["class"] == "all" else f"within class {row['class']}"
        found = "names" if row["p_adjusted"] <= LEVEL else "does not find"
        sentences.append(
            f"audit: from {row['layer']!r} a fresh classifier ({row['probe']}) {found} the cluster {where}: balanced "
            f"accuracy {row['balanced_accuracy']:.3f}, chance {row['chance']:.3f} (95 % below {row['null_high']:.3f}), "
            f"p {row['p']:.3f}, {row['p_adjusted']:.3f} corrected for {len(table)} tests."
        )
    return sentences
