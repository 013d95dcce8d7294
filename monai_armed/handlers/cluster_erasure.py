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
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed
from ignite.engine import Engine, Events
from monai.networks.utils import eval_mode

from ..networks.erasure import ClusterEraser, FeatureSums, fit_eraser, fold_eraser
from ..networks.nets.armed_aec import ARMEDAEC
from ..utils.parallel import unwrap

__all__ = ["ClusterErasure", "erase_clusters"]

logger = logging.getLogger(__name__)


@torch.no_grad()
def erase_clusters(network: ARMEDAEC, batches: Iterable[Mapping[str, Any]]) -> int:
    """
    Remove from the fixed latent e_F of an ARMEDAEC what tells the clusters within a class, in closed form, and freeze
    the encoder, see :py:func:`monai_armed.networks.erasure.fit_eraser`. Cells without a label tell how latents vary;
    where a cluster has no others, they are a class of their own and are compared, too. Where no class has cells of two
    clusters all that tells the clusters is erased. Chance is that between cells, as frames of one are not independent:
    their latents are averaged. The decoders and classifiers do not know the latent that is left: train them on.

    Args:
        network: the network, changed in place.
        batches: the training images: dicts of ``"image"``, (B, *in_shape), ``"cluster"``, index (B,), -1 where not
            known, and, if there are, ``"label"``, class (B,), -1 where not known, and ``"cell"``, a name for each
            image, the same for all frames of a cell of its cluster.

    Returns:
        how many directions were erased.

    Raises:
        ValueError: when no two clusters have images.
    """
    latents, clusters, labels, cells = [], [], [], []
    with eval_mode(network):
        for batch in batches:
            image, cluster = (torch.as_tensor(batch[name]) for name in ("image", "cluster"))
            device = network.fixed.to_latent.weight.device
            latents.append(network.encode(image.to(device), cluster.to(device)).cpu())
            clusters.append(cluster.cpu().long())
            labels.append(torch.as_tensor(batch.get("label", torch.full_like(clusters[-1], -1))).cpu().long().flatten())
            cells += list(batch["cell"]) if "cell" in batch else [None] * len(cluster)
    if not clusters:
        raise ValueError("erasing what tells the clusters needs images of at least two known clusters.")
    cluster, label = torch.cat(clusters), torch.cat(labels)
    latent, first = _by_cell(torch.cat(latents), cluster, cells)
    eraser = _fitted(latent, cluster[first], label[first], network.num_clusters)
    fold_eraser(network.fixed.to_latent, eraser)
    network.freeze_encoder()
    return int(eraser.rank)


def _by_cell(latent: torch.Tensor, cluster: torch.Tensor, cells: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean latent (N, D) of each cell, and the index (N,) of its first image; an image without a cell is one."""
    numbers: dict[Any, int] = {}
    keys = [(k, cell) if cell is not None else i for i, (k, cell) in enumerate(zip(cluster.tolist(), cells))]
    index = torch.tensor([numbers.setdefault(key, len(numbers)) for key in keys])
    count = torch.bincount(index).double()
    mean = torch.zeros(len(numbers), latent.shape[1]).double().index_add_(0, index, latent.double()) / count[:, None]
    first = torch.full((len(numbers),), len(keys)).scatter_reduce_(0, index, torch.arange(len(keys)), "amin")
    return mean, first


def _fitted(latent: torch.Tensor, cluster: torch.Tensor, label: torch.Tensor, num_clusters: int) -> ClusterEraser:
    known = cluster >= 0
    if not set(cluster[known].tolist()) <= set(cluster[known & (label >= 0)].tolist()):
        label = torch.where(label < 0, label.max().clamp(min=-1) + 1, label)
    sums = FeatureSums(latent.shape[1], num_clusters, num_classes=int(label.max()) + 1)
    sums.update(latent, cluster, label)
    pairs = torch.unique(torch.stack([label, cluster])[:, known & (label >= 0)], dim=1)
    within = len(pairs[0]) > len(pairs[0].unique())  # a class has cells of two clusters
    if not within:
        logger.warning("no class has cells of two clusters: what tells the clusters is erased, and the class with it.")
    return fit_eraser(sums, within_label=within, keep_label=False)


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
        ValueError: when ``epoch`` is not positive, the network is no ARMEDAEC, or training starts that ends before it
            or has missed it.
    """

    def __init__(self, network: ARMEDAEC, batches: Iterable, epoch: int | None) -> None:
        if epoch is not None and epoch < 1:
            raise ValueError(f"epoch must be at least 1, or null for no erasure, got {epoch}.")
        self.network, self.batches, self.epoch = unwrap(network), batches, epoch
        if epoch is not None and not hasattr(self.network, "freeze_encoder"):
            raise ValueError(
                f"ClusterErasure is for ARMEDAEC, got {type(self.network).__name__}: around others put erasers, "
                "ARMED(..., erasers=...), and fit them with fit_erasers of monai_armed.networks.erasure."
            )
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
            erased = erase_clusters(self.network, self.batches)
            self.erased = True
            logger.info(
                f"{erased} directions that tell clusters are erased from the fixed latent, and its encoder is frozen"
            )
