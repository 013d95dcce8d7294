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
import torch.distributed
from ignite.engine import Events
from monai.networks.utils import eval_mode

from ..networks.erasure import cluster_means, erase_directions
from ..utils.parallel import unwrap

if TYPE_CHECKING:
    from ignite.engine import Engine

    from monai_armed.networks.nets import ARMEDAEC

__all__ = ["ClusterErasure", "erase_clusters"]

logger = logging.getLogger(__name__)


@torch.no_grad()
def erase_clusters(
    network: ARMEDAEC, batches: Iterable[Mapping[str, torch.Tensor]], shrinkage: float = 1e-3
) -> torch.Tensor:
    """
    Remove from the fixed latent e_F of an ARMEDAEC what tells the clusters, in closed form, and freeze the encoder.
    Erased are the differences between the clusters' mean latents and, with random effects, between the latents of the
    same images shown as if from one cluster or another, in which no sample's own differences take part. The decoders
    and classifiers do not know the latent that is left: train them on.

    Args:
        network: the network, changed in place.
        batches: the training images and their clusters: dicts of ``"image"``, (B, *in_shape), and ``"cluster"``, index
            (B,), -1 where not known.
        shrinkage: see :py:func:`monai_armed.networks.erasure.erase_directions`.

    Returns:
        the projection (D, D) of the latent.

    Raises:
        ValueError: when no two clusters have images.
    """
    device, count = network.fixed.to_latent.weight.device, network.num_clusters
    latents, clusters, changes, shown = [], [], [], []
    with eval_mode(network):
        for batch in batches:
            image, cluster = (torch.as_tensor(batch[name]).to(device) for name in ("image", "cluster"))
            latents.append(network.fixed.encode(image))
            clusters.append(cluster)
            if network.random is not None:
                step = 1 + torch.arange(len(cluster), device=device) % max(1, count - 1)
                shown.append(torch.where(cluster < 0, -1, (cluster + step) % count))
                as_other = network.reconstruct(image, cluster, as_cluster=shown[-1])
                changes.append(network.fixed.encode(as_other) - latents[-1])
    cluster = torch.cat(clusters) if clusters else torch.empty(0, dtype=torch.long)
    if len(cluster[cluster >= 0].unique()) < 2:
        raise ValueError("erasing what tells the clusters needs images of at least two known clusters.")
    directions = [cluster_means(torch.cat(latents), cluster, count)]
    if changes:
        directions.append(cluster_means(torch.cat(changes), torch.cat(shown), count))
    projection = erase_directions(network.fixed.to_latent, torch.cat(latents), torch.cat(directions), shrinkage)
    network.freeze_encoder()
    return projection


class ClusterErasure:
    """
    Ignite handler that erases from the fixed latent of an ARMEDAEC what tells the clusters, at the start of one epoch,
    and freezes the encoder from then on, see :py:func:`erase_clusters`: the epochs
    before shape the latent, those after teach the decoders and classifiers what is left of it. In several processes
    each erases the same, as each sees all of the batches. Whether it is done is a state to be saved with the network's.

    Args:
        network: the network, also inside ``DistributedDataParallel``.
        batches: all training images and their clusters, without random transforms; gone through once.
        epoch: the epoch, from 1, at whose start to erase; None: never, for a model that is compared.

    Raises:
        ValueError: when ``epoch`` is not positive, or training starts that ends before it or has missed it.
    """

    def __init__(self, network: ARMEDAEC, batches: Iterable, epoch: int | None) -> None:
        if epoch is not None and epoch < 1:
            raise ValueError(f"epoch must be at least 1, or null for no erasure, got {epoch}.")
        self.network, self.batches, self.epoch = unwrap(network), batches, epoch
        self.erased = False

    def state_dict(self) -> dict[str, bool]:
        """Whether the clusters are erased."""
        return {"erased": self.erased}

    def load_state_dict(self, state: Mapping[str, bool]) -> None:
        """Args: state: from :py:meth:`state_dict`."""
        self.erased = state["erased"]

    def attach(self, engine: Engine) -> None:
        """Args: engine: the trainer; attach this after the handler that loads a checkpoint."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def start(self, engine: Engine) -> None:
        """Freeze the encoder when training goes on whose clusters are erased."""
        if self.erased:
            self.network.freeze_encoder()
            logger.info("the clusters were erased before: the encoder of the fixed latent stays as it is.")
        elif self.epoch is not None:
            done, last = engine.state.epoch, engine.state.max_epochs
            if last is not None and last < self.epoch:
                raise ValueError(f"the clusters are to be erased in epoch {self.epoch}, training ends after {last}.")
            if done >= self.epoch:
                raise ValueError(
                    f"training goes on after epoch {done}, but its clusters were not erased in epoch {self.epoch}: "
                    "give the epochs that it began with, or start anew."
                )

    def __call__(self, engine: Engine) -> None:
        if engine.state.epoch == self.epoch and not self.erased:
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                for tensor in self.network.state_dict().values():  # running statistics differ between processes
                    torch.distributed.broadcast(tensor, 0)
            erase_clusters(self.network, self.batches)
            self.erased = True
            logger.info("what tells the clusters was erased from the fixed latent; its encoder stays as it is.")
