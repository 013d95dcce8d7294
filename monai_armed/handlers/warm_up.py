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
"""Schedules by which the adversary's pressure, and the KL term, are raised in training."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from ignite.engine import Engine, Events

from ..utils.parallel import unwrap

__all__ = ["LinearWarmUp", "ReversalWarmUp"]

SETTERS = ("set_reversal_strength", "set_kl_strength")


class LinearWarmUp:
    """
    Ignite handler that raises what has a strength from 0 to 1 in the first epochs, iteration by iteration: the
    adversary's pressure on the features, so that they can first learn something, and the weight of the KL term.

    Args:
        network: the network; one without an adversary is left alone.
        loss: the loss; one without a KL term is left alone.
        epochs: length of the warm-up.

    Raises:
        ValueError: when ``epochs`` is negative.
    """

    def __init__(self, network: torch.nn.Module, loss: Callable, epochs: float) -> None:
        if epochs < 0:
            raise ValueError(f"epochs of the warm-up must not be negative, got {epochs}.")
        self.epochs = epochs
        self.setters: list[Callable[[float], None]] = [
            getattr(part, name) for part in (unwrap(network), loss) for name in SETTERS if hasattr(part, name)
        ]

    def attach(self, engine: Engine) -> None:
        """Args: engine: the trainer."""
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        state = engine.state
        length = self.epochs * (state.epoch_length or 1)
        strength = 1.0 if state.iteration > length else 1 / length * state.iteration
        for setter in self.setters:
            setter(strength)


class ReversalWarmUp:
    """
    Ignite handler that raises the pressure of the adversary on the features from 0 to 1 over training, so that they
    can first learn something: strength 2 / (1 + exp(-rate p)) - 1 at progress p (Ganin et al. 2016,
    https://arxiv.org/abs/1505.07818). Networks without an adversary are left alone.

    Args:
        network: the network, which has a ``set_reversal_strength``, also inside ``DistributedDataParallel``.
        rate: how fast; 10 in Ganin et al.

    Raises:
        ValueError: when ``rate`` is not positive.
    """

    def __init__(self, network: torch.nn.Module, rate: float = 10.0) -> None:
        if rate <= 0:
            raise ValueError(f"rate must be positive, got {rate}.")
        self.network, self.rate = unwrap(network), rate

    def strength(self, progress: float) -> float:
        """Strength at a progress between 0, the first iteration, and 1, the end of training."""
        return 2 / (1 + math.exp(-self.rate * progress)) - 1

    def attach(self, engine: Engine) -> None:
        """Args: engine: the trainer."""
        if hasattr(self.network, "set_reversal_strength"):
            engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        state = engine.state
        total = (state.max_epochs or 1) * (state.epoch_length or 1)
        self.network.set_reversal_strength(self.strength((state.iteration - 1) / total))  # type: ignore[operator]
