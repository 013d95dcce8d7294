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

"""Meta-learning domain generalization (MLDG), the rival of Table 1 that the paper takes from Li et al. 2018."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from ignite.engine import Engine
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys
from torch.func import functional_call, grad_and_value, vmap

__all__ = ["MLDGObjective", "MLDGTrainer"]

Parameters = Mapping[str, torch.Tensor]


class MLDGObjective:
    """
    Objective of MLDG (Algorithm 1 of Li et al. 2018, https://arxiv.org/abs/1710.03463) for one batch::

        F(theta) + beta G(theta - alpha F'(theta))

    with F the mean loss over the batch's samples of the meta-train clusters and G that over the meta-test clusters,
    which are drawn anew for each batch. The gradient goes through F', so it has second-order terms. The loss is taken
    one sample at a time and then averaged, so that the split needs no shapes that depend on the data.

    Args:
        loss: called with logits and ``{"label", "cluster"}`` of one sample (a batch of 1), returns a scalar.
        num_clusters: number of clusters C.
        num_meta_test: number of clusters held out in each batch.
        inner_learning_rate: alpha, the step on F that G is measured after.
        beta: weight of G.

    Raises:
        ValueError: when a number is out of its range.
    """

    def __init__(
        self,
        loss: Callable[[torch.Tensor, Mapping[str, torch.Tensor]], torch.Tensor],
        num_clusters: int,
        num_meta_test: int = 3,
        inner_learning_rate: float = 0.01,
        beta: float = 1.0,
    ) -> None:
        if not 0 < num_meta_test < num_clusters:
            raise ValueError(f"num_meta_test must be between 1 and {num_clusters - 1}, got {num_meta_test}.")
        if inner_learning_rate <= 0 or beta < 0:
            raise ValueError(
                f"inner_learning_rate must be positive and beta not negative, got {inner_learning_rate} and {beta}."
            )
        self.loss, self.num_clusters, self.num_meta_test = loss, num_clusters, num_meta_test
        self.inner_learning_rate, self.beta = inner_learning_rate, beta

    def draw(self, generator: torch.Generator | None = None) -> torch.Tensor:
        """Meta-test clusters of one batch: (C,) float, 1 where held out."""
        held_out = torch.zeros(self.num_clusters)
        held_out[torch.randperm(self.num_clusters, generator=generator)[: self.num_meta_test]] = 1
        return held_out

    def _of_one(self, logits: torch.Tensor, label: torch.Tensor, cluster: torch.Tensor) -> torch.Tensor:
        return self.loss(logits[None], {"label": label[None], "cluster": cluster[None]})

    def __call__(
        self,
        predict: Callable[[Parameters], torch.Tensor],
        parameters: Parameters,
        target: Mapping[str, torch.Tensor],
        held_out: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            predict: logits (B, K) of the batch for given parameters of the network.
            parameters: the parameters theta, by name.
            target: ``"label"`` (B, ...) and ``"cluster"`` (B,), the index of each sample.
            held_out: from :py:meth:`draw`.

        Returns:
            the objective, a scalar, in which a side without samples in this batch has no term; and the logits.
        """
        known = target["cluster"] >= 0  # samples of unknown cluster are trained on
        in_test = held_out[target["cluster"].clamp(min=0)] * known

        def mean_loss(theta: Parameters, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits = predict(theta)
            losses = vmap(self._of_one)(logits, target["label"], target["cluster"])
            return (losses * weight).sum() / weight.sum().clamp(min=1), logits

        slope, (meta_train, logits) = grad_and_value(mean_loss, has_aux=True)(parameters, 1 - in_test)
        moved = {name: p - self.inner_learning_rate * slope[name] for name, p in parameters.items()}
        meta_test, _ = mean_loss(moved, in_test)
        return meta_train + self.beta * meta_test, logits


class MLDGTrainer(SupervisedTrainer):
    """
    Trains any network by MLDG, with second-order gradients by ``torch.func``.

    Args:
        objective: what is minimised; it holds the loss.
        kwargs: arguments of ``SupervisedTrainer``; ``loss_function`` is ignored, and ``prepare_batch`` must give
            targets with ``"label"`` and ``"cluster"``, as :py:class:`monai_armed.engines.PrepareBatchCluster` does.

    Raises:
        ValueError: when gradients are to be accumulated or automatic mixed precision is asked for.
    """

    network: torch.nn.Module

    def __init__(self, *args, objective: MLDGObjective, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if self.accumulation_steps > 1 or self.scaler is not None:
            raise ValueError("MLDG takes one full-precision step a batch: use accumulation_steps=1 and amp=False.")
        self.objective = objective

    def _iteration(self, engine: Engine, batchdata: dict[str, torch.Tensor]) -> dict:
        """One iteration; its output holds image, label, prediction (before the step) and the objective as loss."""
        inputs, targets, args, kwargs = self.prepare_batch(
            batchdata, self.state.device, self.non_blocking, **self.to_kwargs
        )
        self.network.train()
        output = {Keys.IMAGE: inputs, Keys.LABEL: targets}
        self.state.output = output
        trained = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        held_out = self.objective.draw().to(inputs.device)
        self.optimizer.zero_grad(set_to_none=self.optim_set_to_none)

        def total(parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
            def predict(theta: Parameters) -> torch.Tensor:
                return functional_call(self.network, dict(theta), (inputs, *args), kwargs)

            return self.objective(predict, parameters, targets, held_out)

        gradients, (loss, logits) = grad_and_value(total, has_aux=True)(trained)
        output[Keys.PRED] = logits
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        output[Keys.LOSS] = loss
        self.fire_event(IterationEvents.LOSS_COMPLETED)
        for name, p in trained.items():
            p.grad = gradients[name]
        self.fire_event(IterationEvents.BACKWARD_COMPLETED)
        self.optimizer.step()
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return output
