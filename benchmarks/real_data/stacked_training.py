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
"""Training of several small networks at once, on samples of their own: folds, candidates, starts.

``monai_armed.compare.stacked`` does this with small batches and early stopping, for the bundles. Tables of some
thousand rows are better served by large batches and a penalty on the weights.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn as nn
from torch.func import functional_call, stack_module_state, vmap

from monai_armed.handlers import ReversalWarmUp
from monai_armed.losses import ARMEDLoss

__all__ = ["train_penalised"]

LEARNING_RATE, BATCH_SIZE = 0.03, 768
RANDOM_EFFECTS_RATE = 0.1  # the posterior's s.d. start small and have a long way to go


def train_penalised(
    networks: Sequence[nn.Module],
    losses: Sequence[ARMEDLoss],
    decay: Sequence[float],
    x: torch.Tensor,
    y: torch.Tensor,
    z: torch.Tensor,
    steps: int,
    batch_size: int = BATCH_SIZE,
) -> list[dict[str, torch.Tensor]]:
    """
    Train M networks of one architecture by Adam with a cosine schedule.

    Args:
        networks: the networks at their start; called with features and cluster.
        losses: the objective of each, whose weights may differ; what they learn (the residual's s.d.) is trained, too.
        decay: weight of each network's penalty: half the sum of squares of the wrapped network's weights.
        x: features (M, n, p).
        y: targets (M, n).
        z: cluster index (M, n).
        steps: number of steps.
        batch_size: rows of each step, drawn anew, where there are more.

    Returns:
        state dict of each network.
    """
    network, loss = copy.deepcopy(networks[0]).train(), copy.deepcopy(losses[0])
    theta, buffers = stack_module_state([n.train() for n in networks])
    phi, _ = stack_module_state(list(losses))
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    penalised = [n for n in theta if n.startswith("network.") and n.endswith("weight")]
    weight = torch.as_tensor(decay, dtype=x.dtype)

    lambdas = {name: torch.tensor([one.weights[name] for one in losses]) for name in loss.weights}

    def objective(theta, phi, buffers, weights, x, y, z):
        loss.weights = weights
        output = functional_call(network, {**theta, **buffers}, (x, z))
        return functional_call(loss, phi, (output, {"label": y, "cluster": z}))

    fast = [p for n, p in theta.items() if n in trained and "effects" in n]
    slow = [p for n, p in theta.items() if n in trained and "effects" not in n]
    groups = [{"params": [*slow, *phi.values()], "lr": LEARNING_RATE}, {"params": fast, "lr": RANDOM_EFFECTS_RATE}]
    optimizer = torch.optim.Adam([g for g in groups if g["params"]])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    warm_up = ReversalWarmUp(network)
    total = vmap(objective, randomness="different")
    rows = torch.arange(len(networks)).unsqueeze(1)
    whole = x.shape[1] <= batch_size
    for step in range(steps):
        if "adversary.reversal_strength" in buffers:
            buffers["adversary.reversal_strength"].fill_(warm_up.strength(step / steps))
        penalty = sum((theta[n].square().flatten(1).sum(1) for n in penalised), torch.zeros(len(weight)))
        optimizer.zero_grad()
        batch = (x, y, z)
        if not whole:
            pick = torch.randint(x.shape[1], (len(networks), batch_size))
            batch = tuple(d[rows, pick] for d in (x, y, z))
        (total(theta, phi, buffers, lambdas, *batch) + weight / 2 * penalty).sum().backward()
        optimizer.step()
        schedule.step()
    state = {**theta, **buffers}
    return [{name: state[name][m].detach() for name in network.state_dict()} for m in range(len(networks))]
