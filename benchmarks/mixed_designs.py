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

"""Does the s.d. of random effects come out right from any start? Run ``python benchmarks/mixed_designs.py``.

Thirty simulated designs, binary and Gaussian, random intercepts (true s.d. 1) and slopes (.5), 2 to 500 samples a
cluster, 5 to 100,000 clusters; "uncentred" has a feature of mean 2 and a full covariance. Printed are the s.d. of the
effects that were drawn, those of the variational fit from the default start and from a prior and posterior of s.d. 1,
with the objective (negative ELBO / N) of each, and those after ``fit_mixed_model`` (ML, Laplace, or quadrature of one
binary intercept), with seconds of CPU. All data are simulated. About 40 minutes of CPU; ``--only 3 4`` runs
some designs.
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import NamedTuple

import numpy as np
import torch

from monai_armed.losses import ARMEDLoss, BinomialLikelihoodLoss, GaussianLikelihoodLoss
from monai_armed.mixed_model import fit_mixed_model
from monai_armed.networks import ARMED, DFNN

INTERCEPT_SD, SLOPE_SD, RESIDUAL = 1.0, 0.5, 0.8
STEPS, LEARNING_RATE = 1500, 0.03
FULL_BATCH, BATCH_SIZE, EPOCHS = 20_000, 1024, 10
SIZES = [  # clusters, samples of each, slopes, mean of the feature
    (5, 500, False, 0),
    (5, 500, True, 0),
    (20, 20, False, 0),
    (20, 100, True, 0),
    (50, 50, True, 0),
    (50, 50, True, 2),
    (100, 5, False, 0),
    (100, 20, True, 0),
    (300, 2, False, 0),
    (300, 12, True, 0),
    (1000, 2, False, 0),
    (1000, 12, True, 0),
    (1000, 12, True, 2),
    (10_000, 10, False, 0),
    (100_000, 10, False, 0),
]


class Design(NamedTuple):
    """Kind of labels and what is in ``SIZES``."""

    binary: bool
    clusters: int
    samples: int
    slopes: bool
    mean: float


DESIGNS = [Design(binary, *size) for binary in (True, False) for size in SIZES]


def simulate(design: Design, seed: int = 0) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    """Data as one batch, and the s.d. of the effects that were drawn: slope, if there is one, and intercept."""
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(design.clusters), design.samples)
    x = design.mean + rng.normal(size=len(cluster))
    u = rng.normal(size=(design.clusters, 2)) * [SLOPE_SD * design.slopes, INTERCEPT_SD]
    eta = 0.5 + (1 + u[cluster, 0]) * (x - design.mean) + u[cluster, 1] + u[cluster, 0] * design.mean
    if design.binary:
        label = (rng.uniform(size=len(x)) < 1 / (1 + np.exp(-eta))).astype(float)
    else:
        label = eta + RESIDUAL * rng.normal(size=len(x))
    batch = {"image": torch.tensor(x[:, None]), "label": torch.tensor(label)}
    batch = {key: value.float() for key, value in batch.items()} | {"cluster": torch.tensor(cluster)}
    return batch, u.std(0)[0 if design.slopes else 1 :]


def train(design: Design, data: dict[str, torch.Tensor], **start: float) -> tuple[ARMED, float]:
    """A network trained as README has it, and the objective over all data at the end."""
    torch.manual_seed(0)
    effects = {"learn_prior": True, "sampling": "sample", "covariance": "full" if design.mean else "diagonal", **start}
    options = {"adversary": None, "nonlinear_slopes": False, "linear_slopes": design.slopes, "random_effects": effects}
    net = ARMED(DFNN(1, hidden_channels=()), design.clusters, (1,), **options)
    count = len(data["label"])
    likelihood = BinomialLikelihoodLoss() if design.binary else GaussianLikelihoodLoss()
    loss = ARMEDLoss(likelihood, lambda_fixed=0, lambda_kl=1 / count)
    whole = count <= FULL_BATCH
    size = count if whole else BATCH_SIZE
    steps = STEPS if whole else EPOCHS * (count // size)
    optimizer = torch.optim.Adam([*net.parameters(), *likelihood.parameters()], lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order = torch.arange(count)
    for step in range(steps):
        place = step % max(count // size, 1)
        if not whole and place == 0:
            order = torch.randperm(count)
        index = order[place * size : (place + 1) * size]
        optimizer.zero_grad()
        loss(net(data["image"][index], data["cluster"][index]), {"label": data["label"][index]}).backward()
        optimizer.step()
        schedule.step()
    return net, _objective(net, loss, data)


@torch.no_grad()
def _objective(net: ARMED, loss: ARMEDLoss, data: dict[str, torch.Tensor], draws: int = 20) -> float:
    values = []
    for _ in range(draws):
        logits = net(data["image"], data["cluster"])["mixed"]
        values.append(loss.loss(logits, data["label"]))
    assert net.random_effects is not None
    return float(torch.stack(values).mean() + net.random_effects.kl() / len(data["label"]))


def row(design: Design) -> str:
    """One design's line of the table."""
    data, true = simulate(design)
    cells = []
    for start in ({}, {"prior_scale": 1.0, "posterior_scale": 1.0}):
        before = time.process_time()
        net, objective = train(design, data, **start)
        assert net.random_effects is not None
        sd = net.random_effects.prior_scale.tolist()
        cells.append(f"{_text(sd)} | {objective:.4f} | {time.process_time() - before:.0f}")
    before = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        points = 15 if design.binary and not design.slopes else 1
        fit = fit_mixed_model(net, _loader(data), "Laplace" if design.binary else "ML", quadrature_points=points)
    exact = fit.VarCorr()["sd"][: len(true)]
    cells.append(f"{_text(exact)} | {time.process_time() - before:.0f}")
    kind = f"{'logit' if design.binary else 'Gaussian'} ({'x' if design.slopes else '1'} \\| z)"
    name = f"{kind}, {design.clusters:,} x {design.samples}" + ", uncentred" * bool(design.mean)
    return f"| {name} | {_text(true)} | " + " | ".join(cells) + " |"


def _text(values) -> str:
    return " / ".join(f"{value:.3f}" for value in values)


def _loader(data: dict[str, torch.Tensor], size: int = 65_536) -> list[dict[str, torch.Tensor]]:
    return [{k: v[i : i + size] for k, v in data.items()} for i in range(0, len(data["label"]), size)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=int, nargs="+", default=list(range(len(DESIGNS))), help="numbers of designs")
    torch.set_num_threads(1)
    print("| design | drawn | default start | objective | s | start at 1 | objective | s | exact | s |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for k in parser.parse_args().only:
        print(row(DESIGNS[k]), flush=True)


if __name__ == "__main__":
    main()
