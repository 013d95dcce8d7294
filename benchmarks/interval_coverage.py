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

"""Do 90 % intervals of a fitted mixed model cover? Run ``python benchmarks/interval_coverage.py`` (half an hour).

Linear mixed models, Gaussian (REML) and binary (Laplace and quadrature), with a random intercept (true s.d. 1) or also
a random slope (.5, uncorrelated, fitted with a correlation), 10 or 20 samples a cluster, all simulated: share of 90 %
intervals that hold the truth, over the fixed effects, the variance components (by profile, or Wald with more than 200
clusters) and the random effects, of 20 data sets.

With ``--few``: 95 % intervals of each fixed effect by itself, of few clusters: the intercept, a covariate that varies
within clusters, and one that does not, such as a hospital's size.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import time
import warnings
from collections.abc import Sequence

import numpy as np
import torch

from monai_armed.mixed_model import fit_mixed_model
from monai_armed.networks import ARMED, DFNN

LEVEL, RESIDUAL = 0.9, 0.8
SD = {"x0": 0.5, "(Intercept)": 1.0, "": RESIDUAL}
FIXED = np.array([0.5, 1.0])
FEW_LEVEL, BETWEEN = 0.95, 0.5  # of intervals, and the effect of a covariate of the clusters
KINDS = {"fixef": "fixed effects", "VarCorr": "variance components", "ranef": "random effects"}
PROFILED = 200  # clusters
BAR = "\\|"  # in a table's cell
DESIGNS = {  # binary, slopes, methods
    "Gaussian (1 | z)": (False, False, ["REML"]),
    "Gaussian (x | z)": (False, True, ["REML"]),
    "binary (1 | z)": (True, False, ["Laplace", "quadrature"]),
    "binary (x | z)": (True, True, ["Laplace", "quadrature"]),
}


def simulate(clusters: int, binary: bool, slopes: bool, seed: int) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    """Data as one batch, and the true effects, (C, Q)."""
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(clusters), 20 if binary else 10)
    x = rng.normal(size=len(cluster))
    u = rng.normal(size=(clusters, 2)) * [SD["x0"] * slopes, SD["(Intercept)"]]
    eta = FIXED[0] + u[cluster, 1] + (FIXED[1] + u[cluster, 0]) * x
    label = rng.uniform(size=len(x)) < 1 / (1 + np.exp(-eta)) if binary else eta + RESIDUAL * rng.normal(size=len(x))
    batch = {"image": torch.tensor(x[:, None]), "label": torch.tensor(label.astype(float))}
    return batch | {"cluster": torch.tensor(cluster)}, u if slopes else u[:, 1:]


def covered(
    clusters: int, binary: bool, slopes: bool, method: str, seed: int, kinds: list[str]
) -> dict[str, list[bool]]:
    """Which intervals of one data set hold the truth."""
    batch, u = simulate(clusters, binary, slopes, seed)
    effects = {"learn_prior": True, "covariance": "full" if slopes else "diagonal"}
    options = {"adversary": None, "nonlinear_slopes": False, "linear_slopes": slopes, "random_effects": effects}
    net = ARMED(DFNN(1, hidden_channels=()), clusters, (1,), **options).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        fit = fit_mixed_model(net, [batch], method)
    truths = {"fixef": FIXED, "ranef": u.reshape(-1), "VarCorr": np.array([SD[e] for e in fit.VarCorr()["effect"]])}
    tables = {"fixef": fit.fixef, "ranef": fit.ranef}
    tables["VarCorr"] = functools.partial(fit.confint, "profile" if clusters <= PROFILED else "wald")
    found = {name: (tables[name](level=LEVEL), truths[name]) for name in kinds}
    return {name: ((t["low"] <= true) & (true <= t["high"])).tolist() for name, (t, true) in found.items()}


def of_few(clusters: int, binary: bool, sd: float, method: str, seed: int) -> list[bool]:
    """Whether the intervals of the intercept, of a covariate within and of one between clusters hold the truth."""
    rng = np.random.default_rng([seed, clusters])
    cluster = np.repeat(np.arange(clusters), 20 if binary else 10)
    x = np.stack([rng.normal(size=len(cluster)), rng.normal(size=clusters)[cluster]], 1)
    eta = FIXED[0] + x @ [FIXED[1], BETWEEN] + sd * rng.normal(size=clusters)[cluster]
    label = rng.uniform(size=len(x)) < 1 / (1 + np.exp(-eta)) if binary else eta + RESIDUAL * rng.normal(size=len(x))
    batch = {"image": torch.tensor(x), "label": torch.tensor(label.astype(float)), "cluster": torch.tensor(cluster)}
    effects = {"learn_prior": True, "covariance": "diagonal"}
    options = {"adversary": None, "nonlinear_slopes": False, "linear_slopes": False, "random_effects": effects}
    net = ARMED(DFNN(2, hidden_channels=()), clusters, (2,), **options).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        table = fit_mixed_model(net, [batch], method).fixef(FEW_LEVEL)
    truth = np.array([FIXED[0], FIXED[1], BETWEEN])
    return ((table["low"] <= truth) & (truth <= table["high"])).tolist()


def table_of_few(clusters: Sequence[int], methods: Sequence[str], seeds: Sequence[int]) -> None:
    """Print the table of few clusters."""
    print("| labels | s.d. of the clusters | clusters | by | intercept | within clusters | between clusters | s |")
    print("|---|---|---|---|---|---|---|---|")
    for binary, sd in itertools.product((False, True), (1.0, 0.3)):
        for count, method in itertools.product(clusters, methods):
            if binary == (method == "REML"):
                continue
            start = time.process_time()
            shares = np.mean([of_few(count, binary, sd, method, seed) for seed in seeds], 0)
            cells = " | ".join(f"{share:.3f}" for share in shares)
            kind, seconds = "binary" if binary else "Gaussian", time.process_time() - start
            print(f"| {kind} | {sd:g} | {count} | {method} | {cells} | {seconds:.0f} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clusters", type=int, nargs="+", default=[20, 100, 1000])
    parser.add_argument("--sets", type=int, default=20, help="number of data sets of each design")
    parser.add_argument("--designs", nargs="+", default=list(DESIGNS), choices=DESIGNS)
    parser.add_argument("--methods", nargs="+", default=["REML", "Laplace", "quadrature"])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS, help="profiles take most of the time")
    parser.add_argument("--few", action="store_true", help="the fixed effects of few clusters, each by itself")
    parser.add_argument("--first_seed", type=int, default=0, help="seed of the first data set of few clusters")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.few:
        seeds = range(arguments.first_seed, arguments.first_seed + arguments.sets)
        return table_of_few(arguments.clusters, arguments.methods, seeds)
    print(f"| design | clusters | by | {' | '.join(KINDS[kind] for kind in arguments.kinds)} | s |")
    print("|---|---|---|" + "---|" * (len(arguments.kinds) + 1))
    for clusters in arguments.clusters:
        for name in arguments.designs:
            binary, slopes, methods = DESIGNS[name]
            for method in (m for m in methods if m in arguments.methods):
                start = time.process_time()
                sets = [
                    covered(clusters, binary, slopes, method, seed, arguments.kinds) for seed in range(arguments.sets)
                ]
                shares = [np.mean([v for found in sets for v in found[kind]]) for kind in arguments.kinds]
                cells = " | ".join(f"{share:.3f}" for share in shares)
                seconds = time.process_time() - start
                print(f"| {name.replace('|', BAR)} | {clusters:,} | {method} | {cells} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
