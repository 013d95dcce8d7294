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

import torch
from ignite.engine import Engine, Events

from ..networks.nets.armed_aec import ARMEDAEC
from ..utils.parallel import unwrap

__all__ = ["ClusterLightFit"]

logger = logging.getLogger(__name__)


class ClusterLightFit:
    """
    Ignite handler that fits the light of an ARMEDAEC to the training images in closed form before training starts, so
    that its fixed latent is of images without it. A network without a light stays as it is; where the images do not
    let one be fitted, training goes on without, and a warning says so. In several processes each fits the same.

    Args:
        network: the network, also inside ``DistributedDataParallel``.
        batches: all training images, see :py:meth:`monai_armed.networks.blocks.ClusterLight.fit`; gone through once.
    """

    def __init__(self, network: ARMEDAEC, batches: Iterable[Mapping[str, torch.Tensor]]) -> None:
        self.network, self.batches = unwrap(network), batches

    def attach(self, engine: Engine) -> None:
        """Args: engine: the trainer; attach this before the handler that loads a checkpoint."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine | None = None) -> None:
        light = getattr(self.network, "light", None)
        if light is None:
            return
        try:
            light.fit(self.batches)
        except ValueError as error:
            logger.warning(f"the images keep their clusters' light, which cannot be told: {error}")
