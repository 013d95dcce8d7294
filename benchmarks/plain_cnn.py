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

"""
What a plain CNN reads of the phenotype from simulated cells, beside ARMED on the same cells.

First ``python -m monai_armed compare --bundle bundles/armed_cell_aec --out runs/cells --folds 5 --repeat
simulation_seed --models armed``, then ``python benchmarks/plain_cnn.py runs/cells``. The CNN (four 3 x 3 convolutions
of stride 2 with batch normalisation, 16 to 128 channels, mean over the image; AdamW, one cycle up to 0.001, 20 epochs
of batches of 32) is trained on the images of the fold's training cells and scored on its held-out ones, by cell.
ARMED's figures are those of the fold: AUROC of its mixed effects, and of a fresh linear classifier on its fixed latent.
"""

from __future__ import annotations

import argparse
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from monai.networks.blocks import Convolution
from sklearn.metrics import roc_auc_score

from monai_armed.transforms import LoadCelld

CHANNELS = (1, 16, 32, 64, 128)
EPOCHS, BATCH, RATE = 20, 32, 1e-3


def images_of(rows: pd.DataFrame) -> torch.Tensor:
    """Images (N, 1, 64, 64) of a table's files."""
    load = LoadCelld("image", 64)
    return torch.stack([torch.as_tensor(load({"image": file})["image"]) for file in rows["file"]])


def plain_cnn() -> torch.nn.Module:
    """Four strided convolutions, mean over the image, one logit."""
    blocks = [
        Convolution(2, below, above, strides=2, act="RELU", norm="BATCH", adn_ordering="NA", bias=False)
        for below, above in pairwise(CHANNELS)
    ]
    head = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(CHANNELS[-1], 1)]
    return torch.nn.Sequential(*blocks, *head)


def train(network: torch.nn.Module, images: torch.Tensor, label: torch.Tensor) -> None:
    """Train on images (N, 1, H, W) with labels (N,)."""
    steps = len(images) // BATCH
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps * EPOCHS)
    network.train()
    for _ in range(EPOCHS):
        for index in torch.randperm(len(images))[: steps * BATCH].split(BATCH):
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(network(images[index])[:, 0], label[index]).backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def auroc(network: torch.nn.Module, rows: pd.DataFrame) -> float:
    """AUROC by cell of the mean over its frames."""
    network.eval()
    score = torch.cat([network(x)[:, 0] for x in images_of(rows).split(128)]).numpy()
    cells = rows.assign(score=score).groupby(["batch", "cell"])[["label", "score"]].mean()
    return float(roc_auc_score(cells["label"], cells["score"]))


def main() -> None:
    parser = argparse.ArgumentParser(description="A plain CNN beside ARMED on simulated cells.")
    parser.add_argument("runs", type=Path, help="folder of the comparison")
    folder = parser.parse_args().runs
    table = []
    for fold in sorted(folder.glob("**/armed/fold_*")):
        rows = pd.read_csv(fold / "predictions.csv", dtype={"batch": str}).query("label >= 0")
        part = dict(list(rows.groupby("partition")))
        figures = json.loads((fold / "metrics.json").read_text())
        torch.manual_seed(0)
        network = plain_cnn()
        train(network, images_of(part["train"]), torch.tensor(part["train"]["label"].to_numpy(np.float32)))
        row: dict[str, object] = {"fold": fold.name}
        for name, shown in (("test", "seen"), ("unseen", "unseen")):
            row[f"CNN, {shown}"] = auroc(network, part[name])
            row[f"mixed, {shown}"] = figures[f"{name}_mixed_auroc"]
            row[f"fresh, {shown}"] = figures.get(f"{name}_fixed_fresh_auroc", float("nan"))
        table.append(row)
        print(pd.DataFrame(table).to_string(index=False, float_format="%.3f"))


if __name__ == "__main__":
    main()
