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

"""The posterior of a new cluster's random effects, given some of its samples and their labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn as nn
from monai.networks.utils import eval_mode

from ..losses.armed_loss import ARMEDLoss
from .blocks.random_slopes import RandomSlopes
from .layers.feature_layers import find_layer
from .layers.random_effects import RandomEffects
from .nets.armed import ARMED

__all__ = ["Features", "features_of", "infer", "share_told"]

LEARNING_RATE = 0.05  # in units of Laplace's approximation
MODE_STEPS = 100
MOST_CHECKED = 16  # samples


class Features(NamedTuple):
    """What the random effects of the new cluster act on: all of it is the same in every step."""

    latent: torch.Tensor
    x: torch.Tensor
    fixed: torch.Tensor
    offset: torch.Tensor  # fixed logits and the other factors' random effects
    head: nn.Module


def features_of(net: ARMED, x: torch.Tensor, factor: str, cluster: Mapping[str, torch.Tensor] | None) -> Features:
    """Of samples (n, *input_shape); ``cluster`` is of the other factors, and a ValueError if it has this one."""
    known = dict(cluster or {})
    if factor in known:
        raise ValueError(
            f"cluster is for the other factors of the samples, whose {factor} is the new one: leave it out."
        )
    with torch.no_grad(), eval_mode(net):
        fixed, latent = net.fixed_and_latent(x)
        offset = net(x, known, unknown="population") if known else fixed
    return Features(latent, x, fixed, offset, find_layer(net.network, net.head))


def infer(
    slopes: RandomSlopes,
    features: Features,
    label: torch.Tensor,
    error: ARMEDLoss,
    steps: int,
    num_draws: int,
    seed: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Posterior mean (Q,) and Cholesky factor (Q, Q). It starts as Laplace's approximation (the mode, and the curvature
    there), which with Gaussian labels it is, and is found in units of that: in them it is about N(0, 1).
    """
    effects, x = slopes.effects, features.x
    full = effects.covariance == "full"
    repeated = [t.repeat(num_draws, *(1,) * (t.ndim - 1)) for t in (*features[:4], label)]
    posterior = _Likelihood(slopes, features, label, error)
    generator = torch.Generator().manual_seed(seed)
    with eval_mode(features.head), torch.enable_grad():
        mode = posterior.mode()
        root = posterior.root(mode, full)
        loc, log_scale = (torch.zeros_like(mode, requires_grad=True) for _ in range(2))
        lower = torch.zeros_like(root, requires_grad=full)
        parameters = [p for p in (loc, log_scale, lower) if p.requires_grad]
        optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

        def moments() -> tuple[torch.Tensor, torch.Tensor]:
            return mode + root @ loc, root @ (log_scale.exp().diag() + lower.tril(-1))

        for _ in range(steps):
            noise = torch.randn(num_draws, len(mode), generator=generator).to(mode)
            centre, tril = moments()
            v = centre + noise @ tril.T
            u = (v @ posterior.unit.T).to(effects.loc.dtype).repeat_interleave(len(x), 0)
            logits = repeated[3] + slopes(u, *repeated[:3], features.head)
            negative_log_likelihood = len(x) * error.terms(logits, {"label": repeated[4]})["fixed"]
            # log q with its own parameters held (https://arxiv.org/abs/1703.09194): no noise where q is the posterior
            own = torch.linalg.solve_triangular(tril.detach(), (v - centre.detach()).T, upper=False)
            kl = (v.square().sum() - own.square().sum()) / (2 * num_draws)  # to N(0, 1), for its gradient
            gradients = torch.autograd.grad(negative_log_likelihood + kl, parameters)
            for parameter, gradient in zip(parameters, gradients):
                parameter.grad = gradient
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        centre, tril = moments()
        return posterior.unit @ centre, posterior.unit @ tril


class _Likelihood:
    """The labels' likelihood as a function of the effects in units of the prior, in which that is N(0, 1)."""

    def __init__(self, slopes: RandomSlopes, features: Features, label: torch.Tensor, error: ARMEDLoss) -> None:
        self.slopes, self.head, self.error = slopes, features.head, error
        self.parts = (*features[:4], label)
        self.unit = _unit(slopes.effects)

    def logits(
        self, v: torch.Tensor, latent: torch.Tensor, x: torch.Tensor, fixed: torch.Tensor, offset: torch.Tensor
    ) -> torch.Tensor:
        """Of samples, with the effects v (Q,)."""
        effects = (self.unit @ v).to(self.slopes.effects.loc.dtype)
        return offset + self.slopes(effects.expand(len(x), -1), latent, x, fixed, self.head)

    def negative(self, v: torch.Tensor, which: torch.Tensor | None = None) -> torch.Tensor:
        """Negative log-likelihood of the labels of all samples, or of some."""
        *inputs, label = self.parts if which is None else (part[which] for part in self.parts)
        return len(label) * self.error.terms(self.logits(v, *inputs), {"label": label})["fixed"]

    def curvature(self, v: torch.Tensor, which: torch.Tensor | None = None) -> torch.Tensor:
        """Second derivative of it, (Q, Q), in double precision on the CPU, as some devices have none."""
        with torch.enable_grad():
            found = torch.autograd.functional.hessian(lambda values: self.negative(values, which), v)
        return found.cpu().double()

    def mode(self) -> torch.Tensor:
        """Where the posterior is highest, (Q,)."""
        v = torch.zeros(len(self.unit), device=self.unit.device, dtype=self.unit.dtype, requires_grad=True)
        optimizer = torch.optim.LBFGS([v], max_iter=MODE_STEPS, line_search_fn="strong_wolfe")

        def closure() -> torch.Tensor:
            value = self.negative(v) + v.square().sum() / 2
            (v.grad,) = torch.autograd.grad(value, [v])
            return value

        optimizer.step(closure)
        return v.detach()

    def root(self, mode: torch.Tensor, full: bool) -> torch.Tensor:
        """Cholesky factor (Q, Q) of the posterior's covariance by the curvature there, no wider than the prior."""
        curvature = self.curvature(mode)
        if not full:
            return (1 + curvature.diagonal().clamp(min=0)).rsqrt().diag().to(mode)
        values, axes = torch.linalg.eigh((curvature + curvature.T) / 2)
        return torch.linalg.cholesky((axes / (1 + values.clamp(min=0))) @ axes.T).to(mode)


def _unit(effects: RandomEffects) -> torch.Tensor:
    """Cholesky factor (Q, Q) of the prior: effects are this times N(0, 1)."""
    prior = effects.cluster_prior()
    full = effects.covariance == "full"
    return (prior.scale_tril if full else prior.base_dist.scale.diag()).detach()


def share_told(
    slopes: RandomSlopes, features: Features, label: torch.Tensor, error: ARMEDLoss, loc: torch.Tensor
) -> float:
    """
    Share of the variance of the new cluster's logits under the prior that the labels take away, by the curvature of the
    likelihood at the posterior mean ``loc``: of each of some samples by the labels of all others, since it is new
    samples that are to be predicted. NaN where clusters do not differ under the prior.
    """
    posterior = _Likelihood(slopes, features, label, error)
    centre = torch.linalg.solve(posterior.unit, loc)
    count, one = len(label), torch.eye(len(centre)).to(centre)
    with eval_mode(features.head):
        whole = posterior.curvature(centre) + one.cpu().double()
        before = left = 0.0
        for i in torch.linspace(0, count - 1, min(count, MOST_CHECKED)).long().unsqueeze(1):
            alone = [part[i] for part in posterior.parts[:4]]
            with torch.no_grad():
                base = posterior.logits(torch.zeros_like(centre), *alone)
                z = torch.stack([(posterior.logits(v, *alone) - base).flatten() for v in one])  # linear in the effects
                z = z.cpu().double()
            before += float(z.square().sum())
            left += float((z * torch.linalg.solve(whole - posterior.curvature(centre, i), z)).sum())
    return 1 - left / before if before > 0 else math.nan
