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

import math
from typing import Any

from ignite.engine import Engine, Events
from monai.engines import Evaluator

__all__ = ["EarlyStop"]


class EarlyStop:
    """
    Ignite handler that ends training when the key metric of validation has not improved for a while. Unlike MONAI's
    ``EarlyStopHandler`` it is attached to the trainer, which it then knows, and has a state that can be saved, so that
    patience is not forgotten when interrupted training goes on.

    Args:
        validator: evaluator with a key metric; its ``metric_cmp_fn`` says what is better.
        patience: number of validations without improvement after which training ends.
        first_epoch: validations before this epoch do not count, for training whose aim changes then; None: all count.

    Raises:
        ValueError: when ``patience`` is not positive.
    """

    def __init__(self, validator: Evaluator, patience: int, first_epoch: int | None = None) -> None:
        if patience < 1:
            raise ValueError(f"patience must be at least 1, got {patience}.")
        self.validator, self.patience, self.first_epoch = validator, patience, first_epoch or 1
        self.best: float | None = None
        self.waited = 0

    def attach(self, engine: Engine) -> None:
        """Args: engine: the trainer; attach this after the handler that validates."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        state = self.validator.state
        if state.epoch != engine.state.epoch or state.epoch < self.first_epoch:  # not validated in this epoch
            return
        score = float(state.metrics[state.key_metric_name])
        if self.best is None or math.isnan(self.best) or self.validator.metric_cmp_fn(score, self.best):
            self.best, self.waited = score, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            engine.terminate()

    def state_dict(self) -> dict[str, Any]:
        """Best score, and number of validations without improvement."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Args: state: from :py:meth:`state_dict`."""
        self.best, self.waited = state["best"], state["waited"]
