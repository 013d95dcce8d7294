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

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys
from torch.optim import Optimizer

from ..losses.armed_loss import ARMEDLoss
from .feature_memory import FeatureMemory

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["ARMEDTrainer"]


class ARMEDTrainer(SupervisedTrainer):
    """
    Trains an :py:class:`monai_armed.networks.nets.ARMED` network as the paper does (Section 2.1 of
    https://arxiv.org/abs/2202.11783): in every iteration first the adversary learns to name the cluster from the
    features as they are, then the rest of the network takes a step on Eq. 14 against that adversary. It also puts each
    term of the loss into ``engine.state.output``, by name, for the handlers that log.

    MONAI's own ``SupervisedTrainer`` trains the same network with one optimizer in one pass, at less cost: here the
    network runs once more for the adversary's steps, so that its batch normalisation sees every batch twice.
    Under ``DistributedDataParallel`` set ``find_unused_parameters=True``.

    Args:
        adversary_optimizer: optimizer of ``network.adversary.parameters()``, or None if there is no adversary.
        adversary_steps: steps of the adversary before each step of the network.
        adversary_memory: features of earlier samples, from which the adversary then learns, in place of those of the
            batch that the network is about to take its step on; the first batch is learned from itself.
        kwargs: arguments of ``SupervisedTrainer``; its ``optimizer`` holds all parameters but the adversary's, and its
            ``loss_function`` is an :py:class:`monai_armed.losses.ARMEDLoss`.

    Raises:
        ValueError: when the loss is no ``ARMEDLoss``, an optimizer holds the other's parameters, ``adversary_steps``
            is not positive, the adversary would not be trained, there is none to train, or gradients are to be
            accumulated or the network compiled, which only ``SupervisedTrainer`` does.
    """

    network: torch.nn.Module
    loss_function: ARMEDLoss

    def __init__(
        self,
        *args,
        adversary_optimizer: Optimizer | None = None,
        adversary_steps: int = 1,
        adversary_memory: FeatureMemory | None = None,
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(self.loss_function, ARMEDLoss):
            raise ValueError(f"loss_function must be an ARMEDLoss, got {type(self.loss_function).__name__}.")
        if adversary_steps < 1:
            raise ValueError(f"adversary_steps must be at least 1, got {adversary_steps}.")
        if self.accumulation_steps > 1:
            raise ValueError("alternating updates do not accumulate gradients: use accumulation_steps=1.")
        if adversary_optimizer is not None and _parameters(adversary_optimizer) & _parameters(self.optimizer):
            raise ValueError("optimizer and adversary_optimizer share parameters: give each its own.")
        if self.compile:
            raise ValueError("alternating updates do not compile the network: use SupervisedTrainer for compile=True.")
        adversary = getattr(getattr(self.network, "module", self.network), "adversary", None)
        if adversary is None and adversary_optimizer is not None:
            raise ValueError("the network has no adversary: leave adversary_optimizer out.")
        if adversary is not None and adversary_optimizer is None:
            if not {id(p) for p in adversary.parameters()} <= _parameters(self.optimizer):
                raise ValueError("the adversary's parameters are in no optimizer: pass adversary_optimizer.")
        self.adversary_optimizer = adversary_optimizer
        self.adversary_steps = adversary_steps
        self.adversary_memory = adversary_memory

    def _backward(self, loss: torch.Tensor) -> None:
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def _step(self, optimizer: Optimizer) -> None:
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()

    def _train_adversary(self, inputs: torch.Tensor, targets: Mapping[str, torch.Tensor]) -> None:
        """All steps of one iteration: the network runs once for them."""
        memory, wanted = self.adversary_memory, {name: targets[name] for name in ("cluster", "label")}
        if memory is None:
            features: torch.Tensor | list[torch.Tensor] = inputs
            for _ in range(self.adversary_steps):
                features = self._adversary_step(features, wanted)
            return
        with torch.no_grad(), torch.autocast("cuda", enabled=self.scaler is not None, **self.amp_kwargs):
            taps = self.network(inputs, adversary_only=True)["taps"]
        if not len(memory):
            memory.add(taps, wanted)
        for _ in range(self.adversary_steps):
            self._adversary_step(*memory.draw())
        memory.add(taps, wanted)

    def _adversary_step(
        self, features: torch.Tensor | list[torch.Tensor], targets: Mapping[str, torch.Tensor]
    ) -> list[torch.Tensor]:
        """One step; returns the features, without gradient, for further ones."""
        assert self.adversary_optimizer is not None
        self.adversary_optimizer.zero_grad(set_to_none=self.optim_set_to_none)
        with torch.autocast("cuda", enabled=self.scaler is not None, **self.amp_kwargs):
            output = self.network(features, adversary_only=True)
            loss = self.loss_function.adversary_loss(output["adversary"], targets["cluster"], targets["label"])
        self._backward(loss)
        self._step(self.adversary_optimizer)
        return output["taps"]

    @contextmanager
    def _frozen_adversary(self) -> Iterator[None]:
        """While open, no gradient is computed for the adversary's weights: their step is done, and gradients cost."""
        groups = [] if self.adversary_optimizer is None else self.adversary_optimizer.param_groups
        weights = [p for group in groups for p in group["params"] if p.requires_grad]
        try:
            for p in weights:
                p.requires_grad_(False)
            yield
        finally:
            for p in weights:
                p.requires_grad_(True)

    def _iteration(self, engine: Engine, batchdata: dict[str, torch.Tensor]) -> dict:
        """One iteration; its output holds image, label, prediction, the loss and its terms (detached, unweighted)."""
        if batchdata is None:
            raise ValueError("Must provide batch data for current iteration.")
        inputs, targets, args, kwargs = self.prepare_batch(
            batchdata, self.state.device, self.non_blocking, **self.to_kwargs
        )
        self.network.train()
        if self.adversary_optimizer is not None:
            self._train_adversary(inputs, targets)

        output: dict[str, Any] = {Keys.IMAGE: inputs, Keys.LABEL: targets}
        self.state.output = output
        self.optimizer.zero_grad(set_to_none=self.optim_set_to_none)
        with self._frozen_adversary():
            with torch.autocast("cuda", enabled=self.scaler is not None, **self.amp_kwargs):
                output[Keys.PRED] = self.inferer(inputs, self.network, *args, **kwargs)
                self.fire_event(IterationEvents.FORWARD_COMPLETED)
                terms = self.loss_function.terms(output[Keys.PRED], targets)
                output[Keys.LOSS] = self.loss_function.total(terms)
                self.fire_event(IterationEvents.LOSS_COMPLETED)
            self._backward(output[Keys.LOSS])
            self.fire_event(IterationEvents.BACKWARD_COMPLETED)
        self._step(self.optimizer)
        for name, term in terms.items():
            output[name] = term.detach()
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return output


def _parameters(optimizer: Optimizer) -> set[int]:
    return {id(p) for group in optimizer.param_groups for p in group["params"]}
