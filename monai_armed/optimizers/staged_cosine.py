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

import torch
from monai.optimizers import WarmupCosineSchedule

__all__ = ["staged_cosine"]


def staged_cosine(
    optimizer: torch.optim.Optimizer,
    epochs: int,
    steps_per_epoch: int,
    warm_up_epochs: int = 0,
    second_stage: int | None = None,
) -> torch.optim.lr_scheduler.SequentialLR:
    """
    MONAI's ``WarmupCosineSchedule``, by iterations, once for the whole training or once for each of two stages.

    Args:
        optimizer: the optimizer.
        epochs: length of the training.
        steps_per_epoch: iterations of an epoch.
        warm_up_epochs: epochs at the start of each stage in which the learning rate rises; a fifth of it at most.
        second_stage: epoch, from 1, in which the second stage begins; None: there is one stage.

    Returns:
        the scheduler, to be stepped after each iteration.
    """
    lengths = [epochs] if second_stage is None else [second_stage - 1, epochs - second_stage + 1]
    stages: list[torch.optim.lr_scheduler.LRScheduler] = [
        WarmupCosineSchedule(optimizer, min(warm_up_epochs, n // 5) * steps_per_epoch, n * steps_per_epoch)
        for n in lengths
    ]
    return torch.optim.lr_scheduler.SequentialLR(optimizer, stages, [n * steps_per_epoch for n in lengths[:-1]])
