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
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ignite.engine import Engine

    from monai_armed.networks.nets import ARMEDAEC

__all__ = ["fit_cluster_light"]

logger = logging.getLogger(__name__)


def fit_cluster_light(engine: Engine | None, network: ARMEDAEC, batches: Iterable[Mapping[str, torch.Tensor]]) -> None:
    """
    Fit the light of an ARMEDAEC to the training images, in closed form: the ``writer`` of a
    :py:class:`monai_armed.bundle.Training`. A network without a light stays as it is. Where the images do not let one
    be fitted the network keeps its decoder's way to show clusters, and a warning says so: nothing trained is lost.

    Args:
        engine: the trainer, if any; not needed.
        network: the network, changed in place.
        batches: see :py:meth:`monai_armed.networks.blocks.ClusterLight.fit`.
    """
    if network.light is None:
        return
    try:
        network.light.fit(batches)
    except ValueError as error:
        logger.warning(f"images are shown as if from another cluster by the decoder's random effects alone: {error}")
