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
"""The compared networks: all wrap, or are, the same DFNN, which the inner folds choose for the conventional network."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn as nn
from models import WIDE, TrainingPart
from stacked_training import train_penalised

from monai_armed.losses import ARMEDLoss, GaussianLikelihoodLoss
from monai_armed.networks import ARMED, DFNN, ClusterInput

__all__ = ["Network"]

UNITS, STARTS, STEPS, TRIAL_STEPS = 16, 3, 200, 150
LINEAR = ("leakyrelu", {"negative_slope": 1.0})  # a linear network that has a hidden layer to tap
# Candidates by level, from the simplest: within a level the best is taken, a level must be clearly better than a
# simpler one.
BASES = [[{"act": act, "decay": decay} for decay in (0.01, 0.03, 0.1)] for act in (LINEAR, "tanh")]
MIXED = [[{"linear_slopes": slopes, "lambda_fixed": w} for w in (0.0, 1.0, 10.0)] for slopes in (False, True)]
LAMBDAS = [[{"lambda_adversary": weight}] for weight in (0.003, 0.03, 0.3)]
KINDS = ("conventional", "cluster input", "domain adversarial", "without adversary", "ARMED")
Options = Mapping[str, Any]
RANDOM_EFFECTS = {"learn_prior": True, "sampling": "sample", "prior_scale": 0.5, "posterior_scale": 0.2}


class _Conventional(nn.Module):
    """The DFNN with the signature of the others."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor, cluster: torch.Tensor | None = None) -> torch.Tensor:
        return self.network(x)


class Network:
    """
    One of the networks of :py:data:`KINDS`. The inner folds choose the DFNN (linear or tanh, and the decay of its
    weights) for the conventional network; the others take it as it is, and choose only what is theirs: the mixed ones
    slopes and ``lambda_fixed``, which ARMED takes from the one without adversary, and the adversarial ones the
    adversary's weight. The prediction is the mean of the logits of several starts.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def fit(self, part: TrainingPart) -> Network:
        self.center, self.spread = (0.0, 1.0) if part.binary else (part.y.mean(), part.y.std())
        self.data = [torch.as_tensor(a) for a in (np.float32(part.x), np.float32(self._scaled(part.y)), part.z)]
        options = {**_remembered(part, "base", lambda: self._choose(part, "conventional", BASES))}
        if self.kind in ("without adversary", "ARMED"):
            narrow = part.x.shape[1] <= WIDE  # the slopes of a wide table are more than there are rows
            levels = [[{**options, **c} for c in level] for level in (MIXED if narrow else MIXED[:1])]
            options = {**_remembered(part, "mixed", lambda: self._choose(part, "without adversary", levels))}
        if self.kind in ("domain adversarial", "ARMED"):
            options = {**self._choose(part, self.kind, [[{**options, **c} for c in level] for level in LAMBDAS])}
        self.options = options
        rows = np.arange(len(part.y))
        self.networks = self._train(part, self.kind, [(options, rows)] * STARTS, STEPS)
        return self

    def predict(self, x: np.ndarray, z: np.ndarray) -> dict[str, np.ndarray]:
        known = bool((z >= 0).any())
        args = torch.as_tensor(np.float32(x)), torch.as_tensor(z)
        scores = {"": self._mean_logits(*args)}
        if known and self.kind in ("without adversary", "ARMED"):
            scores["fixed part"] = self._mean_logits(*args, effects="fixed")
        return {kind: score * self.spread + self.center for kind, score in scores.items()}

    def _scaled(self, y: np.ndarray) -> np.ndarray:
        return (y - self.center) / self.spread

    @torch.no_grad()
    def _mean_logits(self, *args: torch.Tensor, **options: Any) -> np.ndarray:
        return torch.stack([network(*args, **options).squeeze(1) for network in self.networks]).mean(0).numpy()

    def _choose(self, part: TrainingPart, kind: str, levels: Sequence[Sequence[Options]]) -> Options:
        """
        By the loss over the inner folds: the best candidate of the first level whose best is within one standard error
        of the best of all. The error is that of the difference, paired by row; rows of a cluster count as dependent.
        """
        unseen = not set(part.z[part.inner[0][1]]) & set(part.z[part.inner[0][0]])
        candidates = [c for level in levels for c in level]
        jobs = [(c, train) for c in candidates for train, _ in part.inner]
        networks = iter(self._train(part, kind, jobs, TRIAL_STEPS))
        losses = np.full((len(candidates), len(part.y)), np.nan)
        for own in losses:
            for _, test in part.inner:
                x, _, z = (d[test] for d in self.data)
                with torch.no_grad():
                    score = next(networks)(x, torch.full_like(z, -1) if unseen else z).squeeze(1).numpy()
                own[test] = part.losses(score * self.spread + self.center, test)
        best, first = int(losses.mean(1).argmin()), 0
        for level in levels:
            chosen = first + int(losses[first : first + len(level)].mean(1).argmin())
            if _within_one_error(losses[chosen] - losses[best], part.z):
                break
            first += len(level)
        return candidates[chosen]

    def _train(self, part: TrainingPart, kind: str, jobs: Sequence[tuple[Options, np.ndarray]], steps: int) -> list:
        """A trained network a job, in evaluation mode; those of one architecture are trained as one stack."""
        torch.manual_seed(part.seed)  # what is trained does not depend on what was remembered
        stacks: dict[str, list[int]] = {}
        for k, (options, _) in enumerate(jobs):
            stacks.setdefault(str((options["act"], options.get("linear_slopes"))), []).append(k)
        trained: list[Any] = [None] * len(jobs)
        for members in stacks.values():
            built = [_build(part, kind, jobs[k][0], len(jobs[k][1])) for k in members]
            smallest = min(len(jobs[k][1]) for k in members)  # inner folds may differ by some rows
            rows = [np.random.default_rng(part.seed).permutation(jobs[k][1])[:smallest] for k in members]
            tensors = (torch.stack([d[r] for r in rows]) for d in self.data)
            # the data term counts once, or once more for the fixed part
            decay = [jobs[k][0]["decay"] * (1 + jobs[k][0].get("lambda_fixed", 0)) for k in members]
            states = train_penalised([n for n, _ in built], [loss for _, loss in built], decay, *tensors, steps)
            for k, (network, _), state in zip(members, built, states):
                network.load_state_dict(state)
                trained[k] = network.eval()
        return trained


def _remembered(part: TrainingPart, key: str, choose: Callable[[], Options]) -> Options:
    """What was chosen before on this training part, or is now; its CPU time counts for each who uses it."""
    if key not in part.memory:
        start = time.process_time()
        part.memory[key] = choose()
        part.memory[f"{key} seconds"] = time.process_time() - start
    else:
        part.memory["saved seconds"] = part.memory.get("saved seconds", 0.0) + part.memory[f"{key} seconds"]
    return part.memory[key]


def _within_one_error(difference: np.ndarray, cluster: np.ndarray) -> bool:
    """Whether the mean is below its standard error, that of a mean of clusters of rows."""
    mean = difference.mean()
    of_cluster = np.bincount(cluster, weights=difference - mean)
    return bool(mean <= np.sqrt(np.square(of_cluster).sum()) / len(difference))


def _build(part: TrainingPart, kind: str, options: Options, num_rows: int) -> tuple[nn.Module, ARMEDLoss]:
    """A network at its start, and its objective."""
    features, clusters = part.x.shape[1], part.num_clusters
    base = DFNN(features, hidden_channels=(UNITS,), act=options["act"])
    error = nn.BCEWithLogitsLoss() if part.binary else GaussianLikelihoodLoss()
    weights = {name: options[name] for name in ("lambda_adversary", "lambda_fixed") if name in options}
    loss = ARMEDLoss(error, lambda_kl=1 / num_rows, **weights)
    if kind == "conventional":
        return _Conventional(base), loss
    if kind == "cluster input":
        return ClusterInput(base, clusters, "hidden.0.0"), loss
    adversary = None if kind == "without adversary" else "dense"
    random = kind != "domain adversarial"
    network = ARMED(
        base,
        clusters,
        (features,),
        adversary=adversary,
        nonlinear_slopes=False,
        linear_slopes=random and options["linear_slopes"],
        intercept=random,
        random_effects=RANDOM_EFFECTS if random else None,
    )
    return network, loss
