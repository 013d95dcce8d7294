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

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.engines.workflow import Workflow
from monai.utils.enums import CommonKeys as Keys
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from ..losses.armed_loss import ARMEDLoss
from ..networks.nets.adversary import Adversary
from ..utils.parallel import unwrap
from .adversary_monitor import AdversaryMonitor
from .feature_memory import FeatureMemory

__all__ = ["ARMEDTrainer"]


class ARMEDTrainer(SupervisedTrainer):
    """
    Trains an :py:class:`monai_armed.networks.nets.ARMED` network as the paper does (Section 2.1 of
    https://arxiv.org/abs/2202.11783): in every iteration first the adversary learns to name the cluster from the
    features as they are, then the rest of the network takes a step on Eq. 14 against it, in one forward pass. Each term
    of the loss goes into ``engine.state.output``, by name, for the handlers that log; an :py:class:`AdversaryMonitor`
    warns where the adversary harms the task.

    Under ``DistributedDataParallel`` the adversary's gradients are averaged over the processes here. Mixed precision is
    that of the device, of the type that ``torch.autocast`` has for it, or of ``amp_kwargs={"dtype": ...}``.

    Args:
        adversary: the network's ``adversary``.
        adversary_optimizer: optimizer of ``adversary.parameters()``; without one the adversary, if there is any, is
            trained by ``optimizer``, in one pass with the network.
        adversary_steps: steps of the adversary before each step of the network.
        adversary_memory: features of earlier samples, from which the adversary then learns, in place of those of the
            batch that the network is about to take its step on; the first batch is learned from itself.
        kwargs: arguments of ``SupervisedTrainer``; its ``optimizer`` holds all parameters but the adversary's, and its
            ``loss_function`` is an :py:class:`monai_armed.losses.ARMEDLoss`.

    Raises:
        ValueError: when the loss is no ``ARMEDLoss``, an optimizer holds the other's parameters, ``adversary_steps``
            is not positive, the adversary would not be trained, there is none to train, or gradients are to be
            accumulated or the network compiled, which only ``SupervisedTrainer`` does.

    Example:
        >>> rest = [*net.network.parameters(), *net.random_slopes.parameters()]
        >>> trainer = ARMEDTrainer(
        ...     ..., network=net, optimizer=Adam(rest), adversary=net.adversary,
        ...     adversary_optimizer=Adam(net.adversary.parameters()),
        ... )
    """

    network: torch.nn.Module
    loss_function: ARMEDLoss

    def __init__(
        self,
        *args,
        adversary: Adversary | None = None,
        adversary_optimizer: Optimizer | None = None,
        adversary_steps: int = 1,
        adversary_memory: FeatureMemory | None = None,
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.adversary, self.adversary_optimizer = adversary, adversary_optimizer
        self.adversary_steps, self.adversary_memory = adversary_steps, adversary_memory
        self._check()
        device = torch.device(self.state.device).type
        self._precision = {"device_type": device, **self.amp_kwargs, "enabled": self.amp}
        self.add_event_handler(Events.STARTED, self._watch)

    def run(self) -> None:  # type: ignore[override]
        """Train. (MONAI's own would scale gradients for CUDA's half precision whatever the device.)"""
        device = self._precision["device_type"]
        dtype = self.amp_kwargs.get("dtype", torch.get_autocast_dtype(device))
        scaler = torch.GradScaler(device, enabled=dtype == torch.float16) if self.amp else None
        self.scaler = scaler  # type: ignore[assignment]
        Workflow.run(self)

    def _check(self) -> None:
        if not isinstance(self.loss_function, ARMEDLoss):
            raise ValueError(f"loss_function must be an ARMEDLoss, got {type(self.loss_function).__name__}.")
        if self.adversary_steps < 1:
            raise ValueError(f"adversary_steps must be at least 1, got {self.adversary_steps}.")
        if self.accumulation_steps > 1:
            raise ValueError("alternating updates do not accumulate gradients: use accumulation_steps=1.")
        if self.compile:
            raise ValueError("alternating updates do not compile the network: use SupervisedTrainer for compile=True.")
        own = getattr(unwrap(self.network), "adversary", None)
        if self.adversary_optimizer is None:
            if own is not None and not {id(p) for p in own.parameters()} <= _parameters(self.optimizer):
                raise ValueError(
                    "the adversary's parameters are in no optimizer: pass adversary=network.adversary and its "
                    "adversary_optimizer."
                )
            return
        if own is None:
            raise ValueError("the network has no adversary: leave adversary_optimizer out.")
        if self.adversary is None:
            raise ValueError("there is an adversary_optimizer, but no adversary: pass adversary=network.adversary.")
        if _parameters(self.adversary_optimizer) & _parameters(self.optimizer):
            raise ValueError("optimizer and adversary_optimizer share parameters: give each its own.")

    def _watch(self) -> None:
        """Also a trainer without handlers says it in words when the adversary harms the task."""
        if getattr(self, "adversary_monitor", None) is None:
            AdversaryMonitor().attach(self)

    def _scaled(self, loss: torch.Tensor) -> torch.Tensor:
        return loss if self.scaler is None else self.scaler.scale(loss)

    def _step(self, optimizer: Optimizer) -> None:
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()

    def _train_adversary(self, features: Sequence[torch.Tensor], targets: Mapping[str, torch.Tensor]) -> None:
        """All steps of one iteration, from features without their graph."""
        own, wanted = [f.detach() for f in features], {name: targets[name] for name in ("cluster", "label")}
        memory = self.adversary_memory
        earlier = memory is not None and len(memory) > 0
        for _ in range(self.adversary_steps):
            self._adversary_step(*(memory.draw(own[0].device) if memory is not None and earlier else (own, wanted)))
        if memory is not None:
            memory.add(own, wanted)

    def _adversary_step(self, features: Sequence[torch.Tensor], targets: Mapping[str, torch.Tensor]) -> None:
        assert self.adversary is not None and self.adversary_optimizer is not None
        with torch.autocast(**self._precision):
            logits = self.adversary.logits(features)
            loss = self.loss_function.adversary_loss(logits, targets["cluster"], targets["label"])
        weights = [p for group in self.adversary_optimizer.param_groups for p in group["params"] if p.requires_grad]
        # not by `backward`, at which DistributedDataParallel would take these gradients for those of the network's pass
        gradients = torch.autograd.grad(self._scaled(loss), weights)
        if isinstance(self.network, DistributedDataParallel):
            joined = torch.cat([g.flatten() for g in gradients])
            torch.distributed.all_reduce(joined, group=self.network.process_group)
            joined /= torch.distributed.get_world_size(self.network.process_group)
            gradients = tuple(part.view_as(p) for part, p in zip(joined.split([p.numel() for p in weights]), weights))
        for p, gradient in zip(weights, gradients):
            p.grad = gradient
        self._step(self.adversary_optimizer)
        self.adversary_optimizer.zero_grad(set_to_none=True)

    def _alternate(self, pred: dict[str, Any], targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The adversary's steps, and then what it says; returns the last of its features without their graph."""
        assert self.adversary is not None
        with torch.autocast(**self._precision):
            features = self.adversary.pool(pred.pop("features"))
        self._train_adversary(features, targets)
        with torch.autocast(**self._precision):
            pred.update(self.adversary(features, frozen=True))
        last = features[-1].detach()
        return last.flatten(2).mean(2) if last.ndim > 2 else last

    def _waited_for(self) -> torch.Tensor | float:
        """
        A zero in which every weight of the adversary has a part: DistributedDataParallel waits for a gradient of each
        parameter of the network, unless it finds the unused ones.
        """
        waits = isinstance(self.network, DistributedDataParallel) and not self.network.find_unused_parameters
        if self.adversary is None or self.adversary_optimizer is None or not waits:
            return 0.0
        return 0.0 * torch.stack([p.flatten()[0] for p in self.adversary.parameters() if p.requires_grad]).sum()

    def _iteration(self, engine: Engine, batchdata: dict[str, torch.Tensor]) -> dict:
        """One iteration; its output holds image, label, prediction, the loss and its terms (detached, unweighted)."""
        inputs, targets, args, kwargs = self.prepare_batch(
            batchdata, self.state.device, self.non_blocking, **self.to_kwargs
        )
        self.network.train()
        output: dict[str, Any] = {Keys.IMAGE: inputs, Keys.LABEL: targets}
        self.state.output = output
        self.optimizer.zero_grad(set_to_none=self.optim_set_to_none)
        alternating = self.adversary_optimizer is not None
        options = {"with_adversary": False} if alternating else {}
        with torch.autocast(**self._precision):
            output[Keys.PRED] = self.inferer(inputs, self.network, *args, **kwargs, **options)
        if alternating:
            output["features"] = self._alternate(output[Keys.PRED], targets)
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        with torch.autocast(**self._precision):
            terms = self.loss_function.terms(output[Keys.PRED], targets)
            output[Keys.LOSS] = self.loss_function.total(terms)
        self.fire_event(IterationEvents.LOSS_COMPLETED)
        self._scaled(output[Keys.LOSS] + self._waited_for()).backward()
        self.fire_event(IterationEvents.BACKWARD_COMPLETED)
        self._step(self.optimizer)
        for name, term in terms.items():
            output[name] = term.detach()
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return output


def _parameters(optimizer: Optimizer) -> set[int]:
    return {id(p) for group in optimizer.param_groups for p in group["params"]}
