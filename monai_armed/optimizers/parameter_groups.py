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

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..networks.layers.random_effects import RandomEffects

__all__ = ["adversary_optimizer", "parameter_groups"]

RANDOM_EFFECTS, ADVERSARY = "random_effects", "adversary"


def parameter_groups(
    network: torch.nn.Module, learning_rates: Mapping[str, float] | None = None, adversary: bool = True
) -> list[dict[str, Any]]:
    """
    The trained parameters of a network as groups for an optimizer.

    Args:
        network: any network.
        learning_rates: learning rates of their own, of ``"random_effects"``, of the ``"adversary"``, and of parameters
            by name, such as ``"network.head.bias"``; the network need not have them.
        adversary: whether the adversary's are among them; False if it has an optimizer of its own.

    Returns:
        the groups, first the one without a learning rate of its own.
    """
    rates = dict(learning_rates or {})
    random = {id(p) for m in network.modules() if isinstance(m, RandomEffects) for p in m.parameters()}
    groups: dict[float | None, list[torch.nn.Parameter]] = {None: []}
    for name, parameter in network.named_parameters():
        of_adversary = name.startswith(f"{ADVERSARY}.")
        part = ADVERSARY if of_adversary else RANDOM_EFFECTS if id(parameter) in random else name
        if parameter.requires_grad and (adversary or not of_adversary):
            groups.setdefault(rates.get(part), []).append(parameter)
    return [{"params": params, **({} if rate is None else {"lr": rate})} for rate, params in groups.items()]


def adversary_optimizer(
    network: torch.nn.Module, optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam, **options: Any
) -> torch.optim.Optimizer | None:
    """
    An optimizer for the adversary alone, as :py:class:`monai_armed.engines.ARMEDTrainer` wants it.

    Args:
        network: any network.
        optimizer: the optimizer's class.
        options: further arguments of the optimizer, such as ``lr``.

    Returns:
        the optimizer; None where the network has no adversary.
    """
    adversary = getattr(network, ADVERSARY, None)
    return None if adversary is None else optimizer(adversary.parameters(), **options)
