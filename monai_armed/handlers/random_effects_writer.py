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
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from ignite.engine import Engine, Events

from ..data.replaced_file import write_csv
from ..losses.likelihoods import GaussianLikelihoodLoss
from ..metrics.mixed_model import VarCorr, ranef
from ..networks.nets.armed import ARMED
from ..utils.parallel import is_main_process, unwrap

__all__ = ["RandomEffectsWriter"]

logger = logging.getLogger(__name__)


class RandomEffectsWriter:
    """
    Ignite handler that writes what the network has learned of the clusters when training ends: ``ranef.csv``, the
    random effects of each cluster, and ``varcorr.csv``, their variance components. They are those of the last epoch.

    Args:
        folder: where to write.
        network: the trained network; one without random effects is left alone.
        clusters: names of the clusters in the order of their index; by default the index. For several factors those of
            each by its name.
        feature_names: names of the network's input features.
        likelihood: the loss of a regression, whose residual s.d. goes with the variance components.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        network: torch.nn.Module,
        clusters: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        feature_names: Sequence[str] | None = None,
        likelihood: GaussianLikelihoodLoss | None = None,
    ) -> None:
        self.folder, self.network = Path(folder), network
        self.clusters, self.feature_names, self.likelihood = clusters, feature_names, likelihood

    def attach(self, engine: Engine) -> None:
        """Args: engine: the trainer."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        network = unwrap(self.network)
        if not isinstance(network, ARMED) or not len(network.random_slopes) or not is_main_process():
            return
        residual = None if self.likelihood is None else self.likelihood.scale.item()
        write_csv(ranef(network, self.clusters, self.feature_names), self.folder / "ranef.csv")
        write_csv(VarCorr(network, residual, self.feature_names), self.folder / "varcorr.csv")
        logger.info(f"random effects are in {self.folder / 'ranef.csv'} and {self.folder / 'varcorr.csv'}.")
