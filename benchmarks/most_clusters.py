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

"""100,000 clusters, finished exactly, beside GPBoost's linear model: run ``python benchmarks/most_clusters.py``.

The simulation of ``many_clusters.py`` with ten times its clusters and samples: binary, random intercept of s.d. 1. A
network is trained with random intercepts and finished by ``fit_mixed_model``; GPBoost fits the linear mixed model of
the same ten features, by Laplace. All data are simulated. Seconds of CPU, in one run on one thread. Settings were
chosen on seed 11, which is not among those reported.
"""

from __future__ import annotations

import argparse
import time

import gpboost
import numpy as np
import torch
from many_clusters import HIDDEN, LEARNED, NUM_FEATURES, Draw, fit, logits, posterior_mean, simulate
from sklearn.metrics import roc_auc_score

from monai_armed.mixed_model import fit_mixed_model
from monai_armed.networks import ARMED, DFNN

BATCH_SIZE, EPOCHS, POINTS = 2048, 8, 5


def linear(train: Draw, test: Draw) -> tuple[float, float, float]:
    """Seconds, s.d. and AUROC of GPBoost's linear mixed model."""
    start = time.process_time()
    model = gpboost.GPModel(group_data=train.cluster, likelihood="bernoulli_logit", num_parallel_threads=1)
    model.fit(y=train.label, X=np.column_stack([np.ones(len(train.x)), train.x]))
    seconds = time.process_time() - start
    design = np.column_stack([np.ones(len(test.x)), test.x])
    score = model.predict(X_pred=design, group_data_pred=test.cluster, predict_response=False)["mu"]
    return seconds, float(np.sqrt(model.get_cov_pars(format_pandas=False)[0])), roc_auc_score(test.label, score)


def finished(train: Draw, test: Draw, seed: int) -> None:
    """Print seconds, s.d. and AUROC of ARMED as it is trained, and after each exact fit of it."""
    torch.manual_seed(seed)
    options = {"adversary": None, "nonlinear_slopes": False, "random_effects": LEARNED}
    network = ARMED(DFNN(NUM_FEATURES, hidden_channels=HIDDEN), len(train.b), (NUM_FEATURES,), **options)
    start = time.process_time()
    fit(network, train, 1 / len(train.x), seed, BATCH_SIZE, EPOCHS)
    seconds = time.process_time() - start
    effects = network.random_effects
    assert effects is not None
    show(
        seed, "ARMED, as trained", seconds, effects.prior_scale.item(), roc_auc_score(test.label, logits(network, test))
    )
    batch = {"image": torch.tensor(train.x), "label": torch.tensor(train.label), "cluster": torch.tensor(train.cluster)}
    for name, points in (("Laplace", 1), (f"quadrature of {POINTS} points", POINTS)):
        start = time.process_time()
        found = fit_mixed_model(network, [batch], "Laplace", fixed="offset", quadrature_points=points)
        added = time.process_time() - start
        auroc = roc_auc_score(test.label, logits(network, test))
        show(seed, f"ARMED, finished by {name}", seconds + added, found.VarCorr()["sd"].iloc[0], auroc)


def show(seed: int, name: str, seconds: float, sd: float, auroc: float) -> None:
    """Print a row."""
    print(f"| {seed} | {name} | {sd:.3f} | {auroc:.4f} | {seconds:.1f} |", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--clusters", type=int, default=100_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| seed | model | s.d. (true 1) | AUROC | s of CPU |\n|---|---|---|---|---|")
    for seed in arguments.seeds:
        train, test = simulate(seed, arguments.clusters, 10 * arguments.clusters)
        ceiling = test.fixed + posterior_mean(train.fixed, train)[test.cluster]
        show(seed, "*ceiling: true fixed logit, posterior mean*", 0, 1, roc_auc_score(test.label, ceiling))
        seconds, sd, auroc = linear(train, test)
        show(seed, "GPBoost, linear", seconds, sd, auroc)
        finished(train, test, seed)


if __name__ == "__main__":
    main()
