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

from ignite.engine import Engine, Events
from monai.data.utils import set_rnd
from monai.utils import set_determinism

from ..utils.parallel import process_rank

__all__ = ["EpochSeed"]


class EpochSeed:
    """
    Ignite handler that seeds all random generators anew at the start of each epoch, from the seed and the epoch's
    number. Training that was interrupted and goes on from the checkpoint of an epoch then sees the same shuffles,
    augmentations, dropout and draws of random effects as training that was not.

    Args:
        seed: any integer of at least 0; each of several processes draws from one of its own, made from it.
    """

    def __init__(self, seed: int) -> None:
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}.")
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Args: engine: the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        seed = ((self.seed + 1000 * process_rank()) * 100_003 + engine.state.epoch) % 2**32
        set_determinism(seed, use_deterministic_algorithms=None)
        loader = engine.state.dataloader
        dataset = getattr(loader, "dataset", None)
        if dataset is not None and getattr(loader, "num_workers", 0) == 0:
            set_rnd(dataset, seed)  # random transforms keep states of their own; workers seed them by themselves
