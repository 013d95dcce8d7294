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

"""Variance components of two factors at once against maximum likelihood; run ``python benchmarks/nested_effects.py``.

Linear mixed models with random intercepts of subjects within sites (s.d. 1 and 0.7) or of crossed batches and
operators, residual s.d. 0.8, all simulated. The factors' posteriors are independent of one another in an ARMED
network as it is trained; in truth a site's effect and those of its subjects are not. Printed is the ratio of the found
s.d. to that of ``statsmodels``, as trained and after ``fit_mixed_model`` of the same network.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf
import torch

from monai_armed.losses import ARMEDLoss, GaussianLikelihoodLoss
from monai_armed.metrics.mixed_model import VarCorr
from monai_armed.mixed_model import fit_mixed_model
from monai_armed.networks import ARMED, DFNN

STEPS, LEARNING_RATE = 800, 0.05
# number of the first factor's clusters, of the second's (within one of the first, or in all), samples of each pair
NESTED = [(30, 10, 8), (30, 10, 3), (30, 4, 8), (30, 4, 4)]
CROSSED = [(20, 25, 2), (20, 25, 1), (10, 12, 1)]


def simulate(first: int, second: int, samples: int, nested: bool, seed: int) -> pd.DataFrame:
    """Columns x, y, and the indices ``first`` and ``second``."""
    rng = np.random.default_rng(seed)
    pair = np.repeat(np.arange(first * second), samples)
    a, b = pair // second, pair if nested else pair % second
    x = rng.normal(size=len(pair))
    u = rng.normal(size=first)[a] + 0.7 * rng.normal(size=int(b.max()) + 1)[b]
    return pd.DataFrame({"x": x, "y": 2 + 1.5 * x + u + 0.8 * rng.normal(size=len(x)), "first": a, "second": b})


def maximum_likelihood(table: pd.DataFrame, nested: bool) -> np.ndarray:
    """S.d. of the first factor, the second, and the residual."""
    if nested:
        groups, formulas, random = "first", {"second": "0 + C(second)"}, "1"
    else:
        groups, random = np.zeros(len(table)), "0"
        formulas = {"first": "0 + C(first)", "second": "0 + C(second)"}
    model = smf.mixedlm("y ~ x", table, groups=groups, re_formula=random, vc_formula=formulas).fit(reml=False)
    return np.sqrt([*np.diag(model.cov_re), *model.vcomp, model.scale])


def ours(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The same of an ARMED network as it is trained, and finished exactly."""
    torch.manual_seed(0)
    x, y = (torch.tensor(table[name].to_numpy(), dtype=torch.float32) for name in ("x", "y"))
    cluster = {name: torch.tensor(table[name].to_numpy()) for name in ("first", "second")}
    sizes = {name: int(index.max()) + 1 for name, index in cluster.items()}
    effects = {"prior_scale": 0.5, "posterior_scale": 0.3, "learn_prior": True, "sampling": "sample"}
    options = {"adversary": None, "nonlinear_slopes": False, "random_effects": dict.fromkeys(sizes, effects)}
    net = ARMED(DFNN(1, hidden_channels=()), sizes, (1,), **options)
    likelihood = GaussianLikelihoodLoss()
    loss = ARMEDLoss(likelihood, lambda_fixed=0, lambda_kl=1 / len(y))
    optimizer = torch.optim.Adam([*net.parameters(), *likelihood.parameters()], lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss(net(x.unsqueeze(1), cluster), {"label": y}).backward()
        optimizer.step()
        schedule.step()
    variational = VarCorr(net, likelihood.scale.item())["sd"].to_numpy()
    batch = {"image": x.unsqueeze(1), "label": y, **cluster}
    return variational, fit_mixed_model(net, [batch], "ML", likelihood).VarCorr()["sd"].to_numpy()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4, help="number of data sets of each design")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"found s.d. / maximum likelihood's, mean of {arguments.seeds} data sets: first factor, second, residual; "
        "the same finished exactly"
    )
    for nested, designs in ((True, NESTED), (False, CROSSED)):
        for design in designs:
            tables = [simulate(*design, nested, seed) for seed in range(arguments.seeds)]
            ratios = [np.concatenate(ours(table)) / np.tile(maximum_likelihood(table, nested), 2) for table in tables]
            name = "{} sites, {} subjects each, {} samples each" if nested else "{} batches x {} operators, {} of each"
            print(f"{name.format(*design):46}", *(f"{r:.3f}" for r in np.mean(ratios, axis=0)), flush=True)


if __name__ == "__main__":
    main()
