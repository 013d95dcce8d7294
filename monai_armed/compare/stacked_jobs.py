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

"""What is trained as one stack of networks, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn as nn

from monai_armed.engines.mldg_trainer import MLDGObjective
from monai_armed.networks.layers.random_effects import RandomEffects

__all__ = ["Job", "Recipe", "Trained", "check_jobs"]


@dataclass(frozen=True)
class Recipe:
    """What all stacked networks have in common.

    Args:
        loss: called with the network's training output and ``{"label", "cluster"}``, returns the mean over the batch;
            in evaluation it is called with logits, for the validation loss.
        epochs: number of epochs; the weights of the epoch with the smallest validation loss are kept.
        batch_size: samples in each batch; what is left over at the end of an epoch is dropped.
        pass_cluster: whether the network is called with the cluster.
        warm_up: strength of the adversary's gradient reversal at a progress between 0 and 1; None: always 1.
        mldg: objective of meta-learning domain generalization, in place of ``loss`` in training.
    """

    loss: Callable[[Any, Mapping[str, torch.Tensor]], torch.Tensor]
    epochs: int
    batch_size: int = 32
    pass_cluster: bool = True
    warm_up: Callable[[float], float] | None = None
    mldg: MLDGObjective | None = None


@dataclass(frozen=True)
class Job:
    """One network to be trained, by Adam.

    Args:
        network: the network at its start; not changed.
        train: indices of its training samples.
        val: indices of its validation samples.
        seed: seed of its batches and random draws.
        learning_rate: one number, or one for each parameter by name.
        loss_weights: if given, replaces ``loss.weights`` for this network (see
            :py:class:`monai_armed.losses.ARMEDLoss`).
    """

    network: nn.Module
    train: np.ndarray
    val: np.ndarray
    seed: int
    learning_rate: float | Mapping[str, float] = 1e-3
    loss_weights: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Trained:
    """What became of a job: the best epoch's weights, its validation loss in each epoch, and what went wrong."""

    state: dict[str, torch.Tensor]
    val_loss: list[float]
    best_epoch: int
    error: str = ""


def check_jobs(jobs: Sequence[Job], recipe: Recipe) -> None:
    """
    Raises:
        ValueError: as :py:func:`monai_armed.compare.stacked.train_stacked` says.
    """
    if not jobs:
        raise ValueError("there is nothing to train: jobs is empty.")
    for module in jobs[0].network.modules():
        random = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        normalises = isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats
        per_sample = isinstance(module, RandomEffects) and module.sampling == "sample"
        if random or normalises or per_sample:
            raise ValueError(f"{module} draws or keeps numbers of its own and cannot be stacked: train one by one.")
    shapes = [{name: value.shape for name, value in job.network.state_dict().items()} for job in jobs]
    for k, job in enumerate(jobs):
        if shapes[k] != shapes[0]:
            raise ValueError(f"the network of job {k} differs in shape from that of job 0: stack them apart.")
        if len(job.train) < recipe.batch_size:
            size = recipe.batch_size
            raise ValueError(
                f"job {k} has {len(job.train)} training samples, less than a batch of {size}: give a smaller "
                "batch_size."
            )
        if not len(job.val):
            raise ValueError(f"job {k} has no validation samples, which choose its best epoch.")
