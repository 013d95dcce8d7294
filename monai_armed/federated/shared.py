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

"""What of a network hospitals share, and what stays in each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from ..networks.layers.random_effects import RandomEffects
from ..networks.nets.armed import ARMED

__all__ = ["average", "drawn_by_sample", "load_shared", "prior_as_it_is", "shared_state"]

PRIOR = ("log_prior_scale", "prior_lower")


def _shared_names(net: ARMED) -> list[str]:
    """Names in the state dict; a list of what is shared, so that what a network has besides stays where it is."""
    if net.adversary is not None:
        raise ValueError(
            "an adversary tells clusters apart and no hospital sees those of the others: build the network with "
            "adversary=None, and erasers in its place."
        )
    priors = {
        f"random_slopes.{name}.{part}"
        for name, effects in net.random_slopes.named_modules()
        if isinstance(effects, RandomEffects)
        for part in PRIOR
    }
    return [name for name in net.state_dict() if name.startswith(("network.", "erasers.")) or name in priors]


def shared_state(net: ARMED) -> dict[str, torch.Tensor]:
    """
    The part of a network that leaves the hospital: the fixed effects' weights and running statistics, the prior that
    all clusters share, and the erasers. The posteriors of its clusters' random effects, a Z-predictor and whatever
    else it has are not in it. Statistics of batch norm are averaged as the weights are, not kept in each hospital: they
    would be effects of the hospital that nobody reads, and a new hospital would have none.

    Args:
        net: the hospital's network, whose clusters are its own.

    Returns:
        copies of the tensors by their names in the network's state dict.

    Raises:
        ValueError: when the network has an adversary.
    """
    net.train(net.training)  # folds the stretch of a learned prior into its scale
    state = net.state_dict()
    return {name: state[name].detach().cpu().clone() for name in _shared_names(net)}


def load_shared(net: ARMED, state: Mapping[str, torch.Tensor]) -> None:
    """
    Put into a network what :py:func:`shared_state` or :py:func:`average` gave; all else stays.

    Args:
        net: the network, changed in place.
        state: the tensors.

    Raises:
        ValueError: when they are other tensors than those that this network shares; names the first that differs.
    """
    own = shared_state(net)
    _check_same(own, state, "this hospital's network")
    net.load_state_dict({**net.state_dict(), **state})


def average(states: Mapping[str, Mapping[str, torch.Tensor]], samples: Mapping[str, float]) -> dict[str, torch.Tensor]:
    """
    The mean of what several hospitals share, weighted by their samples (FedAvg, https://arxiv.org/abs/1602.05629).
    The scale of a prior is averaged as its logarithm, as it is learned. Of counters the largest is taken.

    Args:
        states: from :py:func:`shared_state`, by the hospital's name.
        samples: how many samples each was trained on.

    Returns:
        the mean.

    Raises:
        ValueError: when a hospital has no samples, or tensors that are of another network or not finite.
    """
    if not states:
        raise ValueError("there is no hospital to average over: none has answered.")
    first, names = next(iter(states)), list(states)
    for name in names:
        _check_same(states[first], states[name], f"hospital {name!r}")
        if not samples[name] > 0:
            raise ValueError(
                f"hospital {name!r} has {samples[name]} samples: it has nothing to train on, leave it out."
            )
        wrong = [key for key, value in states[name].items() if not bool(value.isfinite().all())]
        if wrong:
            raise ValueError(f"hospital {name!r} sent {wrong[0]!r} with NaN or infinite values: its training diverged.")
    total = sum(samples[name] for name in names)
    weights = [samples[name] / total for name in names]
    return {key: _mean([states[name][key] for name in names], weights) for key in states[first]}


def _mean(tensors: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    if not tensors[0].is_floating_point():
        return torch.stack([*tensors]).amax(dim=0)
    mean = sum(weight * tensor.double() for weight, tensor in zip(weights, tensors))
    return torch.as_tensor(mean).to(tensors[0].dtype)


def _check_same(wanted: Mapping[str, torch.Tensor], got: Mapping[str, torch.Tensor], where: str) -> None:
    other = [n for n in [*wanted, *got] if n not in got or n not in wanted or wanted[n].shape != got[n].shape]
    if other:
        shapes = [tuple(part[other[0]].shape) if other[0] in part else "missing" for part in (wanted, got)]
        raise ValueError(
            f"{where} is of another network: {other[0]!r} is {shapes[1]}, not {shapes[0]}: give all hospitals the same "
            "config."
        )


def _effects(net: ARMED) -> list[RandomEffects]:
    return [module for module in net.random_slopes.modules() if isinstance(module, RandomEffects)]


@contextmanager
def drawn_by_sample(net: ARMED) -> Iterator[None]:
    """Draw random effects for each sample, whatever the network does in training: inference is then less noisy."""
    before = [effects.sampling for effects in _effects(net)]
    try:
        for effects in _effects(net):
            effects.sampling = "sample"
        yield
    finally:
        for effects, sampling in zip(_effects(net), before):
            effects.sampling = sampling


@contextmanager
def prior_as_it_is(net: ARMED) -> Iterator[None]:
    """Keep the prior, which all hospitals share, from being learned anew in one of them."""
    named = [getattr(e, name) for e in _effects(net) for name in (*PRIOR, "log_stretch")]
    learned = [p for p in named if p is not None and p.requires_grad]
    try:
        for parameter in learned:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)
