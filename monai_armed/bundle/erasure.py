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

from collections.abc import Callable

import torch
import torch.distributed
from monai.data import DataLoader
from torch.utils.data import Dataset, Subset

from monai_armed.networks import fit_random_effects
from monai_armed.networks.erasure import fit_erasers

__all__ = ["Erasure"]


class Erasure:
    """
    What makes a trained network forget the clusters, in closed form, as a part of a training
    (:py:class:`monai_armed.bundle.Training`): its erasers are fitted, see
    :py:func:`monai_armed.networks.erasure.fit_erasers`, and then its random effects, if it has any, anew, see
    :py:func:`monai_armed.networks.fit_random_effects`.

    Args:
        dataset: the training samples, with ``"image"``, ``"label"`` and ``"cluster"``; the same in all processes.
        loss: mean loss of logits and labels, the negative log-likelihood of a sample in nats.
        num_classes: number of classes of the label; or
        num_values: number of values of a label that is continuous.
        batch_size: samples that go through the network at once.
        seed: of the random effects' inference.

    Example:
        >>> Training(..., network, erasure=Erasure(dataset, torch.nn.BCEWithLogitsLoss(), num_classes=2))
    """

    def __init__(
        self,
        dataset: Dataset,
        loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        num_classes: int = 0,
        num_values: int = 0,
        batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        self.dataset, self.loss = dataset, loss
        self.num_classes, self.num_values = num_classes, num_values
        self.batch_size, self.seed = batch_size, seed

    def __call__(self, network: torch.nn.Module) -> None:
        """
        Args:
            network: the trained :py:class:`monai_armed.networks.nets.ARMED`, with erasers; changed in place. In several
                processes each calls this.

        Raises:
            ValueError: when it has no erasers, or the samples do not let them be fitted.
        """
        started = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank, number = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if started else (0, 1)
        share = Subset(self.dataset, range(rank, len(self.dataset), number))  # type: ignore[arg-type]
        erased = fit_erasers(network, self._batches(share), self.num_classes, self.num_values)  # type: ignore[arg-type]
        if len(network.random_slopes):  # type: ignore[arg-type]
            fit_random_effects(network, self._batches(self.dataset), self.loss, seed=self.seed)  # type: ignore[arg-type]
        if rank == 0:
            said = ", ".join(f"{count} from {layer!r}" for layer, count in erased.items())
            print(f"erased what tells the clusters, directions by layer: {said}")

    def _batches(self, dataset: Dataset) -> DataLoader:
        return DataLoader(dataset, batch_size=self.batch_size, num_workers=0)
