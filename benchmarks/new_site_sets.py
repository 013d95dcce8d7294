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

"""Do prediction sets and intervals cover at sites that were left out? Real data, and what bundles' evaluate wrote.

Run ``python benchmarks/new_site_sets.py --data FOLDER --predictions run/evaluated_predictions.csv ...`` (2 minutes).
FOLDER has ``impac/participants.csv`` and ``anatomy.csv`` (autism, 24 sites), ``abide/connectomes.npz`` (autism, 14) and
``fcon1000/thickness.csv`` (age, 17). Each site is left out in turn: a linear network with random intercepts is trained
on the others and predicts for the population. Then each site's sets are calibrated on all other sites' predictions.

"Sure" is the level .9 as it stands, which with C other sites is expected to cover up to .9 + .9 / (C + 1); "near" takes
the level .9 C / (C + 1), which leaves out the one more site of infinite score, and the guarantee with it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from monai_armed.losses import ARMEDLoss, GaussianLikelihoodLoss
from monai_armed.metrics.calibration import Calibration
from monai_armed.networks import ARMED, DFNN

LEVEL, STEPS, LEARNING_RATE = 0.9, 200, 0.01
PENALTY = {"IMPAC": 50.0, "ABIDE": 500.0, "FCON1000": 50.0}  # of the squared weights, summed over the samples


def read(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Features, labels and sites by name of the data."""
    people, anatomy = (pd.read_csv(folder / "impac" / f"{name}.csv") for name in ("participants", "anatomy"))
    table = people.merge(anatomy, on=next(c for c in people.columns if c in anatomy.columns))
    areas = anatomy.select_dtypes("number").columns.intersection(table.columns)
    impac = table[areas.difference(["asd", "age", "site"])].to_numpy(float)
    abide = np.load(folder / "abide" / "connectomes.npz")
    fcon = pd.read_csv(folder / "fcon1000" / "thickness.csv")
    brain = fcon.drop(columns=["age", "site"]).select_dtypes("number").to_numpy(float)
    return {
        "IMPAC": (impac, table["asd"].to_numpy(float), table["site"].to_numpy()),
        "ABIDE": (abide["correlation"].astype(float), abide["asd"].astype(float), abide["site"]),
        "FCON1000": (brain, fcon["age"].to_numpy(float), fcon["site"].to_numpy()),
    }


def left_out(x: np.ndarray, y: np.ndarray, site: np.ndarray, penalty: float) -> np.ndarray:
    """The population's prediction of each site by a network that was trained on the others, (N,)."""
    binary, found = len(np.unique(y)) == 2, np.zeros(len(y))
    for name in np.unique(site):
        new = site == name
        mean, sd = np.nanmean(x[~new], 0), np.nanstd(x[~new], 0) + 1e-9
        z = torch.tensor(np.nan_to_num((x - mean) / sd), dtype=torch.float32)
        middle, unit = (0.0, 1.0) if binary else (y[~new].mean(), y[~new].std())
        target = torch.tensor((y - middle) / unit, dtype=torch.float32)
        seen, cluster = np.unique(site[~new], return_inverse=True)
        torch.manual_seed(0)
        effects = {"learn_prior": True, "sampling": "sample"}
        options = {"adversary": None, "nonlinear_slopes": False, "random_effects": effects}
        net = ARMED(DFNN(x.shape[1], hidden_channels=()), len(seen), (x.shape[1],), **options)
        base = torch.nn.BCEWithLogitsLoss() if binary else GaussianLikelihoodLoss()
        count = int((~new).sum())
        loss = ARMEDLoss(base, lambda_fixed=0, lambda_kl=1 / count)
        optimizer = torch.optim.Adam([*net.parameters(), *base.parameters()], lr=LEARNING_RATE)
        batch = {"label": target[~new].unsqueeze(1), "cluster": torch.tensor(cluster)}
        for _ in range(STEPS):
            optimizer.zero_grad()
            shrink = penalty / count * net.network.head.weight.square().sum()
            (loss(net(z[~new], batch["cluster"]), batch) + shrink).backward()
            optimizer.step()
        with torch.no_grad():
            found[new] = middle + unit * net.eval()(z[new]).squeeze(1).numpy()
    return found


def cover(prediction: np.ndarray, y: np.ndarray, site: np.ndarray, level: float) -> tuple[float, float]:
    """Share of samples that are covered and mean size of sets (or width of intervals), means over sites."""
    binary, rows = len(np.unique(y)) == 2, []
    logits, label = torch.tensor(prediction)[:, None], torch.tensor(y)
    for name in np.unique(site):
        new = torch.as_tensor(site == name)
        calibration = Calibration(logits[~new], label[~new], site[site != name].tolist(), level, classification=binary)
        size = calibration.sets(logits[new]).sum(1).double().mean() if binary else 2 * calibration.quantile
        rows.append((float(calibration.covered(logits[new], label[new]).double().mean()), float(size)))
    share, size = np.mean(rows, axis=0)
    return share, size


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the real data")
    parser.add_argument("--predictions", type=Path, nargs="*", default=[], help="evaluated_predictions.csv of evaluate")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| data | sites | sure: coverage | size | near: coverage | size |\n|---|---|---|---|---|---|")
    studies = []
    for file in arguments.predictions:
        table = pd.read_csv(file)
        table = table[table["partition"] == "unseen"]
        for name, part in table.groupby("prediction", sort=False):
            columns = (part["score"], part["label"], part["site"].astype(str))
            studies.append((f"{file.parent.name}, {name}", *(column.to_numpy() for column in columns)))
    for name, (x, y, site) in (read(arguments.data) if arguments.data else {}).items():
        studies.append((name, left_out(x, y, site, PENALTY[name]), y, site))
    for name, prediction, y, site in studies:
        number = len(np.unique(site))
        cells = [cover(prediction, y, site, level) for level in (LEVEL, LEVEL * (number - 1) / number)]
        print(f"| {name} | {number} | " + " | ".join(f"{share:.3f} | {size:.2f}" for share, size in cells) + " |")


if __name__ == "__main__":
    main()
