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

"""Stacked training: every network becomes what it would be alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from monai_armed.compare.stacked import train_stacked
from monai_armed.compare.stacked_jobs import Job, Recipe
from monai_armed.engines import MLDGObjective
from monai_armed.handlers import ReversalWarmUp
from monai_armed.losses import ARMEDLoss
from monai_armed.networks.initialization import xavier_init
from monai_armed.networks.nets import ARMED, DFNN, ClusterInput
from monai_armed.studies.spirals.simulator import simulate_spirals

C = 4


@pytest.fixture(scope="module")
def data():
    spirals = simulate_spirals(1, num_clusters=C, samples_per_cluster=60, seed=3)
    label = torch.from_numpy(spirals.y).float()[:, None]
    return torch.from_numpy(spirals.x), label, torch.from_numpy(spirals.cluster)


def make(kind: str, seed: int) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        base = DFNN(2)
        if kind == "armed":
            return xavier_init(ARMED(base, C, (2,), adversary="dense"))
        if kind == "full covariance":
            effects = {"covariance": "full", "learn_prior": True}
            return ARMED(base, C, (2,), adversary=None, random_effects=effects)
        if kind == "domain adversarial":
            return ARMED(base, C, (2,), adversary="dense", nonlinear_slopes=False, intercept=False)
        if kind == "cluster input":
            return ClusterInput(base, C, "hidden.0.0")
        return base


def jobs_of(kind: str) -> list[Job]:
    rng = np.random.RandomState(0)
    jobs = []
    for k, size in enumerate((160, 160, 100)):  # the last fold has fewer steps than the others
        order = rng.permutation(C * 60)
        network = make(kind, k)
        rate = {n: 1e-2 if "effects" in n else 1e-3 for n, _ in network.named_parameters()} if k else 3e-3
        weights = {"adversary": 0.5} if k == 1 else {}
        jobs.append(Job(network, order[:size], order[200:], seed=k, learning_rate=rate, loss_weights=weights))
    return jobs


def recipe_of(kind: str, **kwargs) -> Recipe:
    loss = ARMEDLoss(torch.nn.BCEWithLogitsLoss(), lambda_adversary=0.2)
    mldg = MLDGObjective(loss, C, num_meta_test=1) if kind == "mldg" else None
    warm_up = ReversalWarmUp(torch.nn.Identity()).strength
    with_cluster = kind not in ("conventional", "mldg")
    return Recipe(loss, 2, 20, pass_cluster=with_cluster, warm_up=warm_up, mldg=mldg, **kwargs)


@pytest.mark.parametrize(
    "kind", ["armed", "full covariance", "domain adversarial", "cluster input", "conventional", "mldg"]
)
def test_each_fold_of_a_stack_equals_training_it_alone(kind, data):
    jobs, recipe = jobs_of(kind), recipe_of(kind)
    together = train_stacked(jobs, recipe, *data)
    for job, result in zip(jobs, together):
        (alone,) = train_stacked([job], recipe, *data)
        assert not result.error and result.best_epoch == alone.best_epoch
        assert result.val_loss == pytest.approx(alone.val_loss, abs=1e-6)
        for name, value in alone.state.items():
            torch.testing.assert_close(result.state[name], value, atol=2e-6, rtol=1e-5)
        start = job.network.state_dict()
        assert any(not torch.equal(value, start[name]) for name, value in result.state.items())


@pytest.mark.parametrize("kind", ["armed", "conventional"])
def test_a_step_is_that_of_torch_adam(kind, data):
    """Against the plain way: the network in training mode, autograd and torch's own Adam."""
    job = jobs_of(kind)[1]
    recipe = Recipe(recipe_of(kind).loss, 1, len(job.train), pass_cluster=kind == "armed")
    (result,) = train_stacked([job], recipe, *data)

    network = make(kind, 1).train()
    loss = ARMEDLoss(torch.nn.BCEWithLogitsLoss(), lambda_adversary=0.5)
    generator = torch.Generator().manual_seed(job.seed)
    index = torch.as_tensor(job.train)[torch.randperm(len(job.train), generator=generator)]
    x, y, z = (d[index] for d in data)
    groups = [{"params": [p], "lr": job.learning_rate[n]} for n, p in network.named_parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(groups)
    if kind == "armed":
        effects = network.random_effects
        noise = torch.randn(1, *effects.loc.shape, generator=generator)[0]
        effects._noise = lambda: noise * effects.scale
    loss(network(x, z) if kind == "armed" else network(x), {"label": y, "cluster": z}).backward()
    optimizer.step()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(result.state[name], value, atol=2e-6, rtol=1e-5)


def test_training_learns_and_the_best_epoch_is_kept(data):
    jobs = [Job(make("conventional", 0), np.arange(0, 240, 2), np.arange(1, 240, 2), seed=0, learning_rate=1e-2)]
    recipe = Recipe(torch.nn.BCEWithLogitsLoss(), 5, 20, pass_cluster=False)
    recipe = Recipe(ARMEDLoss(torch.nn.BCEWithLogitsLoss()), 30, 20, pass_cluster=False)
    (result,) = train_stacked(jobs, recipe, *data)
    assert min(result.val_loss) < result.val_loss[0] - 0.02
    assert result.val_loss[result.best_epoch - 1] == min(result.val_loss)
    network = make("conventional", 0)
    network.load_state_dict(result.state)
    with torch.no_grad():
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(data[0][1::2]), data[1][1::2])
    assert float(loss) == pytest.approx(min(result.val_loss), abs=1e-6)


def test_a_network_that_diverges_is_reported_and_the_others_live(data):
    good, bad = jobs_of("conventional")[:2]
    bad = Job(bad.network, bad.train, bad.val, bad.seed, learning_rate=float("inf"))
    results = train_stacked([good, bad], recipe_of("conventional"), *data)
    assert "validation loss became nan" in results[1].error and not results[0].error
    assert all(math.isfinite(v) for v in results[0].val_loss)


def test_bad_jobs_are_named(data):
    recipe = recipe_of("conventional")
    job = jobs_of("conventional")[0]
    with pytest.raises(ValueError, match="jobs is empty"):
        train_stacked([], recipe, *data)
    with pytest.raises(ValueError, match="less than a batch of 20"):
        train_stacked([Job(job.network, job.train[:10], job.val, 0)], recipe, *data)
    with pytest.raises(ValueError, match="no validation samples"):
        train_stacked([Job(job.network, job.train, job.val[:0], 0)], recipe, *data)
    with pytest.raises(ValueError, match="job 1 differs in shape"):
        train_stacked([job, Job(DFNN(2, hidden_channels=(5,)), job.train, job.val, 0)], recipe, *data)
    with pytest.raises(ValueError, match="one by one"):
        train_stacked([Job(DFNN(2, dropout=0.5), job.train, job.val, 0)], recipe, *data)
