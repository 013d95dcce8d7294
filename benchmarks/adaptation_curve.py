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

"""How many labels of a new site does ``adapt`` need? Run ``python benchmarks/adaptation_curve.py`` (about 4 minutes).

Logistic mixed models of two features, all simulated: 60 training sites of 40 samples, whose intercepts (s.d. 1) or also
slopes (1.2) differ; or which differ little, in intercept (.3). A linear network with random effects of a learned,
correlated prior is trained on them, then adapted to each of 60 new sites with n labelled samples and tested on 500
others of that site.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
import torch
from sklearn.metrics import log_loss, roc_auc_score

from monai_armed.losses import ARMEDLoss
from monai_armed.networks import ARMED, DFNN, adapt

FIXED, SITES, SAMPLES, NEW_SITES, TESTED = torch.tensor([1.0, -0.5]), 60, 40, 60, 500
DESIGNS = {"intercepts": (0.0, 1.0), "slopes and intercepts": (1.2, 1.0), "intercepts, alike": (0.0, 0.3)}
LABELS = (2, 5, 10, 20, 50, 100)
STEPS = 400


def site(seed: int, count: int, slope_sd: float, intercept_sd: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (n, 2) and labels (n,) of one site."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(3, generator=generator) * torch.tensor([slope_sd, slope_sd, intercept_sd])
    x = torch.randn(count, 2, generator=generator)
    return x, (torch.rand(count, generator=generator) < (x @ (FIXED + u[:2]) + u[2]).sigmoid()).float()


def trained(slope_sd: float, intercept_sd: float) -> ARMED:
    """A network trained on the seen sites."""
    torch.manual_seed(0)
    x, y = map(torch.cat, zip(*(site(seed, SAMPLES, slope_sd, intercept_sd) for seed in range(SITES))))
    cluster = torch.arange(SITES).repeat_interleave(SAMPLES)
    effects = {"prior_scale": 0.5, "learn_prior": True, "covariance": "full", "sampling": "sample"}
    net = ARMED(DFNN(2, hidden_channels=()), SITES, (2,), adversary=None, random_effects=effects)
    loss = ARMEDLoss(torch.nn.BCEWithLogitsLoss(), lambda_fixed=0, lambda_kl=1 / len(y))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss(net(x, cluster), {"label": y, "cluster": cluster}).backward()
        optimizer.step()
    return net.eval()


def scores(net: ARMED, labels: int, slope_sd: float, intercept_sd: float) -> np.ndarray:
    """AUROC and log-loss of population and adapted predictions, and whether a warning came; a row for each new site."""
    rows, index = [], torch.full((TESTED,), net.num_clusters)
    for seed in range(1000, 1000 + NEW_SITES):
        x, y = site(seed, labels + TESTED, slope_sd, intercept_sd)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            adapted = adapt(net, x[TESTED:], y[TESTED:], torch.nn.BCEWithLogitsLoss(), steps=100)
        found = []
        with torch.no_grad():
            for logit in (net(x[:TESTED]), adapted(x[:TESTED], index)):
                p = logit.sigmoid().squeeze(1).double().numpy()
                found += [roc_auc_score(y[:TESTED], p), log_loss(y[:TESTED], p)]
        rows.append([*found, len(told)])
    return np.array(rows)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=int, nargs="+", default=LABELS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| sites differ in | labels | AUROC: population | adapted | log-loss: population | adapted | worse | warned |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, design in DESIGNS.items():
        net = trained(*design)
        for labels in arguments.labels:
            table = scores(net, labels, *design)
            auroc, loss, auroc_now, loss_now, warned = table.mean(0)
            worse = np.mean(table[:, 3] > table[:, 1])
            cells = f"{auroc:.3f} | {auroc_now:.3f} | {loss:.3f} | {loss_now:.3f} | {worse:.0%} | {warned:.0%}"
            print(f"| {name} | {labels} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
