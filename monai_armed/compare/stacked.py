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

"""Training of many small networks (folds, starts, hyperparameter candidates) as one stacked model.

For networks of a few thousand weights the cost of a training step is the overhead of its calls, not its arithmetic.
Here M networks of one architecture take each step together: the step of one network is written with ``torch.func``,
vectorised over the networks with ``vmap``, recorded once, and replayed. Every network has its own start, order of
batches and draws of random effects, from generators of its own, so that it becomes what it would be if trained alone.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.func import functional_call, grad_and_value, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from monai_armed.compare.stacked_jobs import Job, Recipe, Trained, check_jobs
from monai_armed.networks.layers.random_effects import RandomEffects

__all__ = ["train_stacked"]

STRENGTH = "adversary.reversal_strength"
BETAS, EPS = (0.9, 0.999), 1e-8


def train_stacked(
    jobs: Sequence[Job],
    recipe: Recipe,
    image: torch.Tensor,
    label: torch.Tensor,
    cluster: torch.Tensor,
    progress: Callable[[int, int], None] | None = None,
) -> list[Trained]:
    """
    Train all jobs together.

    Args:
        jobs: networks of one architecture; hyperparameters that are numbers may differ.
        recipe: what they share.
        image: inputs of all samples, (N, ...), already transformed.
        label: labels of all samples, (N, ...).
        cluster: cluster index of each sample, (N,).
        progress: called with the number of epochs done and to do.

    Returns:
        one result a job, in order. One whose loss is not finite any more keeps its best epoch and has an ``error``.

    Raises:
        ValueError: when the networks differ in shape, draw random numbers of their own (dropout) or normalise over
            the batch, a training part is smaller than a batch, or a validation part is empty.
    """
    stack = _Stack(jobs, recipe)
    data = (image, label, cluster)
    generators = [torch.Generator().manual_seed(job.seed) for job in jobs]
    train = [torch.as_tensor(np.asarray(job.train)).long() for job in jobs]
    steps = torch.tensor([len(t) // recipe.batch_size for t in train])
    results = [Trained(stack.state(k), [], 0) for k in range(len(jobs))]
    best = [math.inf] * len(jobs)
    for epoch in range(recipe.epochs):
        index, draws = stack.shuffle(train, steps, generators)
        for s in range(int(steps.max())):
            stack.set_strength([(epoch + min(s / n, 1)) / recipe.epochs for n in steps.tolist()])
            batch = index[:, s]
            active = None if bool((steps > s).all()) else steps > s
            stack.step(image[batch], label[batch], cluster[batch], [d[:, s] for d in draws], active)
        for k, (job, result) in enumerate(zip(jobs, results)):
            if result.error:
                continue
            loss = stack.validation_loss(k, *(d[torch.as_tensor(job.val)] for d in data))
            result.val_loss.append(loss)
            if not math.isfinite(loss):
                result.error = f"the validation loss became {loss} in epoch {epoch + 1}: lower the learning rate."
            elif loss < best[k]:
                best[k], result.best_epoch, result.state = loss, epoch + 1, stack.state(k)
        if progress is not None:
            progress(epoch + 1, recipe.epochs)
    return results


class _Stack:
    """Parameters of M networks as one (M, P) tensor, with Adam's state on it, and the recorded step."""

    def __init__(self, jobs: Sequence[Job], recipe: Recipe) -> None:
        check_jobs(jobs, recipe)
        self.recipe, self.size = recipe, len(jobs)
        self.network = copy.deepcopy(jobs[0].network).train()
        self.loss = copy.deepcopy(recipe.loss)
        self.noise = [_NoiseHook(m) for m in self.network.modules() if isinstance(m, RandomEffects)]
        named = [dict(job.network.named_parameters()) for job in jobs]
        self.names = [name for name, p in named[0].items() if p.requires_grad]
        self.shapes = [named[0][name].shape for name in self.names]
        self.sizes = [shape.numel() for shape in self.shapes]
        self.flat = torch.stack([torch.cat([p[name].detach().flatten() for name in self.names]) for p in named])
        others = [{**p, **dict(job.network.named_buffers())} for p, job in zip(named, jobs)]
        self.rest = {
            name: torch.stack([other[name].detach() for other in others]).clone()
            for name in others[0]
            if name not in self.names
        }
        self.rate = torch.stack([self._rates(job.learning_rate) for job in jobs])
        weights = [{**getattr(recipe.loss, "weights", {}), **job.loss_weights} for job in jobs]
        self.weights = {name: torch.tensor([float(w[name]) for w in weights]) for name in weights[0]}
        self.moments = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        self.count = torch.zeros(self.size, 1)
        self.graph: Callable[..., torch.Tensor] | None = None

    def _rates(self, rate: float | Mapping[str, float]) -> torch.Tensor:
        if not isinstance(rate, Mapping):
            return torch.full((sum(self.sizes),), float(rate))
        return torch.cat([torch.full((size,), float(rate[name])) for name, size in zip(self.names, self.sizes)])

    def _named(self, vector: torch.Tensor) -> dict[str, torch.Tensor]:
        return {n: p.view(s) for n, p, s in zip(self.names, vector.split(self.sizes), self.shapes)}

    def state(self, k: int) -> dict[str, torch.Tensor]:
        """State dict of network k, a copy."""
        now = {**self._named(self.flat[k]), **{name: value[k] for name, value in self.rest.items()}}
        return {name: now[name].clone() for name in self.network.state_dict()}

    def set_strength(self, progress: list[float]) -> None:
        """Set the adversaries' pressure by each network's own progress."""
        if self.recipe.warm_up is not None and STRENGTH in self.rest:
            strength = {p: self.recipe.warm_up(p) for p in set(progress)}
            self.rest[STRENGTH].copy_(torch.tensor([strength[p] for p in progress]))

    def shuffle(
        self, train: list[torch.Tensor], steps: torch.Tensor, generators: list[torch.Generator]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Samples (M, S, batch) of an epoch's S steps, and its random draws, each (M, S, ...)."""
        size, most = self.recipe.batch_size, int(steps.max())
        index = torch.zeros(self.size, most, size, dtype=torch.long)
        draws: list[list[torch.Tensor]] = []
        for k, (samples, generator) in enumerate(zip(train, generators)):
            own = int(steps[k])
            order = torch.randperm(len(samples), generator=generator)[: own * size]
            index[k, :own] = samples[order].view(own, size)
            draws.append([])
            for hook in self.noise:
                noise = torch.zeros(most, *hook.shape)
                noise[:own] = torch.randn(own, *hook.shape, generator=generator)
                draws[k].append(noise)
            if self.recipe.mldg is not None:
                held_out = [self.recipe.mldg.draw(generator) for _ in range(own)]
                draws[k].append(torch.stack(held_out + [held_out[0]] * (most - own)))
        return index, [torch.stack(kind) for kind in zip(*draws)]

    def _objective(
        self,
        vector: torch.Tensor,
        rest: Mapping[str, torch.Tensor],
        weights: Mapping[str, torch.Tensor],
        x: torch.Tensor,
        y: torch.Tensor,
        z: torch.Tensor,
        draws: list[torch.Tensor],
    ) -> torch.Tensor:
        """Training objective of one network, from its flat parameters."""
        for hook, noise in zip(self.noise, draws):
            hook.noise = noise
        if weights:
            self.loss.weights = weights  # type: ignore[attr-defined]
        target, parameters = {"label": y, "cluster": z}, self._named(vector)
        args = (x, z) if self.recipe.pass_cluster else (x,)

        def predict(theta: Mapping[str, torch.Tensor]) -> Any:
            return functional_call(self.network, {**rest, **theta}, args)

        if self.recipe.mldg is not None:
            return self.recipe.mldg(predict, parameters, target, draws[-1])[0]
        return self.loss(predict(parameters), target)

    def step(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        z: torch.Tensor,
        draws: list[torch.Tensor],
        active: torch.Tensor | None,
    ) -> None:
        """One step of Adam of all networks, or of those that are active (M,)."""
        args = (self.flat, self.rest, self.weights, x, y, z, draws)
        if self.graph is None:
            graph = make_fx(vmap(lambda *a: grad_and_value(self._objective)(*a)[0]))(*args)
            graph.graph.eliminate_dead_code()
            graph.recompile()
            self.graph = graph
        with torch.inference_mode():
            gradient = self.graph(*args)
        first, second = self.moments
        with torch.no_grad():
            if active is None:
                first.lerp_(gradient, 1 - BETAS[0])
                second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
                self.count += 1
            else:
                on = active[:, None]
                first.copy_(torch.where(on, first.lerp(gradient, 1 - BETAS[0]), first))
                second.copy_(torch.where(on, second * BETAS[1] + (1 - BETAS[1]) * gradient**2, second))
                self.count += on
            scale = (second / (1 - BETAS[1] ** self.count)).sqrt_().add_(EPS)
            update = (first / (1 - BETAS[0] ** self.count)).div_(scale).mul_(self.rate)
            self.flat -= update if active is None else update * active[:, None]

    @torch.no_grad()
    def validation_loss(self, k: int, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> float:
        """Loss of network k's prediction in evaluation mode."""
        state = {**self._named(self.flat[k]), **{name: value[k] for name, value in self.rest.items()}}
        for hook in self.noise:
            hook.noise = None
        self.network.eval()
        logits = functional_call(self.network, state, (x, z) if self.recipe.pass_cluster else (x,))
        self.network.train()
        return float(self.recipe.loss(logits, {"label": y, "cluster": z}))


class _NoiseHook:
    """Hands a layer of random effects the draw of its effects, made from noise that comes from outside."""

    def __init__(self, effects: RandomEffects) -> None:
        self.noise: torch.Tensor | None = None
        self.shape = (effects.num_clusters, effects.num_effects)
        effects.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, module: RandomEffects, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if self.noise is None:
            return args, kwargs
        if module.covariance == "full":
            factor = module.posterior().base_dist.scale_tril
            spread = (factor @ self.noise.unsqueeze(-1)).squeeze(-1)
        else:
            spread = module.scale * self.noise
        return args, {**kwargs, "table": module.mean + spread}
