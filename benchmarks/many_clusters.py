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

"""Do the random effects hold with 10,000 clusters? Run ``python benchmarks/many_clusters.py`` (about 2 minutes of CPU).

The binary simulation of MC-GMENN's Section 4.1 (https://arxiv.org/abs/2407.01115), drawn as that of LMMNN
(https://arxiv.org/abs/2206.03314) with a logistic link: 100,000 samples of 10,000 clusters of unequal size, ten
features uniform in (-1, 1), logit s cos(s) + 2 x1 x2 + b with s = 1 + x1 + ... + x10 and b ~ N(0, 1), 80 % for
training. They published AUROC .805 for LMMNN, .765 for a network that ignores the clusters, and .718 for ARMED's
published code without its adversary. All data are simulated. The settings were chosen on seed 11, which is not among
those reported.
"""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import expit, logsumexp
from sklearn.metrics import roc_auc_score

from monai_armed.losses import ARMEDLoss
from monai_armed.networks import ARMED, DFNN

NUM_CLUSTERS, NUM_SAMPLES, NUM_FEATURES = 10_000, 100_000, 10
HIDDEN, BATCH_SIZE, EPOCHS = (100, 50, 25, 12), 256, 15
LEARNING_RATE, EFFECTS_LEARNING_RATE = 3e-3, 0.1
LEARNED = {"prior_scale": 0.5, "learn_prior": True, "posterior_scale": 0.3, "sampling": "sample"}
FIXED = {"prior_scale": 0.25}  # as the paper's CNN has it


class Draw(NamedTuple):
    """A data set: features (N, 10), cluster (N,), label (N,), and the truth: fixed logit (N,) and b (C,)."""

    x: np.ndarray
    cluster: np.ndarray
    label: np.ndarray
    fixed: np.ndarray
    b: np.ndarray

    def part(self, index: np.ndarray) -> Draw:
        """Some of the samples."""
        return self._replace(**{name: getattr(self, name)[index] for name in ("x", "cluster", "label", "fixed")})


def simulate(seed: int, num_clusters: int = NUM_CLUSTERS, num_samples: int = NUM_SAMPLES) -> tuple[Draw, Draw]:
    """Training and test samples."""
    rng = np.random.default_rng(seed)
    size = rng.poisson(3, num_clusters) + 1
    cluster = rng.choice(num_clusters, num_samples, p=size / size.sum())
    b = rng.normal(size=num_clusters)
    x = rng.uniform(-1, 1, (num_samples, NUM_FEATURES)).astype(np.float32)
    s = 1 + x.sum(1)
    fixed = s * np.cos(s) + 2 * x[:, 0] * x[:, 1]
    label = rng.uniform(size=num_samples) < expit(fixed + b[cluster])
    draw, test = Draw(x, cluster, label.astype(np.float32), fixed, b), rng.uniform(size=num_samples) < 0.2
    return draw.part(~test), draw.part(test)


def posterior_mean(fixed: np.ndarray, train: Draw) -> np.ndarray:
    """Mean of each cluster's b given its training labels and fixed logits, by quadrature under the true prior; (C,)."""
    grid = np.linspace(-5, 5, 201)
    log_density = np.tile(-(grid**2) / 2, (len(train.b), 1))
    sign = 2 * train.label - 1
    for column, value in enumerate(grid):
        log_likelihood = -np.logaddexp(0, -sign * (fixed + value))
        log_density[:, column] += np.bincount(train.cluster, log_likelihood, minlength=len(train.b))
    return np.exp(log_density - logsumexp(log_density, axis=1, keepdims=True)) @ grid


def fit(
    network: torch.nn.Module,
    train: Draw,
    lambda_kl: float,
    seed: int,
    batch_size: int = BATCH_SIZE,
    epochs: int = EPOCHS,
) -> torch.nn.Module:
    """Train with fused Adam and a one-cycle learning rate."""
    torch.manual_seed(seed)
    x, label, cluster = (torch.tensor(values) for values in (train.x, train.label, train.cluster))
    loss = ARMEDLoss(torch.nn.BCEWithLogitsLoss(), lambda_fixed=0, lambda_kl=lambda_kl)
    groups: dict[float, list[torch.nn.Parameter]] = {LEARNING_RATE: [], EFFECTS_LEARNING_RATE: []}
    for name, p in network.named_parameters():
        groups[EFFECTS_LEARNING_RATE if name.startswith("random_slopes") else LEARNING_RATE].append(p)
    rates = [rate for rate, parameters in groups.items() if parameters]
    optimizer = torch.optim.Adam([{"params": groups[rate], "lr": rate} for rate in rates], fused=True)
    steps = len(x) // batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=epochs * steps, pct_start=0.1)
    for _ in range(epochs):
        for index in torch.randperm(len(x))[: steps * batch_size].view(steps, batch_size):
            optimizer.zero_grad()
            output = network(x[index], cluster[index]) if isinstance(network, ARMED) else network(x[index])
            loss(output, {"label": label[index], "cluster": cluster[index]}).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


@torch.no_grad()
def logits(network: torch.nn.Module, draw: Draw) -> np.ndarray:
    """Logits (N,) of a trained network."""
    inputs = [torch.tensor(values) for values in ((draw.x, draw.cluster) if isinstance(network, ARMED) else (draw.x,))]
    return network(*inputs).squeeze(1).numpy()


def armed(train: Draw, test: Draw, random_effects: dict, lambda_kl: float, seed: int) -> tuple[float, str]:
    """AUROC of ARMED without adversary, and what it learned of the clusters."""
    torch.manual_seed(seed)
    options = {"adversary": None, "nonlinear_slopes": False, "random_effects": random_effects}
    network = ARMED(DFNN(NUM_FEATURES, hidden_channels=HIDDEN), NUM_CLUSTERS, (NUM_FEATURES,), **options)
    start = time.process_time()
    fit(network, train, lambda_kl, seed)
    seconds = time.process_time() - start
    effects = network.random_effects
    assert effects is not None
    r = np.corrcoef(effects.loc.detach().squeeze(1), train.b)[0, 1]
    told = f"prior s.d. {effects.prior_scale.item():.2f} (true 1), correlation with true b {r:.2f}, {seconds:.0f} s"
    return roc_auc_score(test.label, logits(network, test)), told


def study(seed: int) -> None:
    """Print every model's AUROC on the test samples of one draw."""
    train, test = simulate(seed)

    def show(name: str, score: np.ndarray | float, told: str = "") -> None:
        auroc = roc_auc_score(test.label, score) if isinstance(score, np.ndarray) else score
        print(f"{seed:4}  {name:58} {auroc:.4f}  {told}", flush=True)

    show(
        "ceiling: true fixed logit, posterior mean of b", test.fixed + posterior_mean(train.fixed, train)[test.cluster]
    )
    show("ceiling: true fixed logit alone", test.fixed)
    torch.manual_seed(seed)
    plain = fit(DFNN(NUM_FEATURES, hidden_channels=HIDDEN), train, 0.0, seed)
    show("network that ignores the clusters", logits(plain, test))
    after = posterior_mean(logits(plain, train), train)
    show("the same, posterior mean of b given it (prior known)", logits(plain, test) + after[test.cluster])
    show("ARMED without adversary, learned prior, KL / N", *armed(train, test, LEARNED, 1 / len(train.x), seed))
    show("ARMED without adversary, fixed prior .25, lambda_kl 1e-3", *armed(train, test, FIXED, 1e-3, seed))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("seed  model                                                      AUROC")
    for seed in arguments.seeds:
        study(seed)


if __name__ == "__main__":
    main()
