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

"""Training one network, conventionally or with what users try against shortcuts; each rival is a few lines."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pandas as pd
import torch
from monai.data import CacheDataset, DataLoader
from monai.transforms import (
    Compose,
    EnsureTyped,
    LoadImaged,
    NormalizeIntensityd,
    RandAdjustContrastd,
    RandBiasFieldd,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandHistogramShiftd,
    RandRotate90d,
    Resized,
    ScaleIntensityRanged,
    Transform,
)
from torch import nn
from tqdm import tqdm

from monai_armed.data import balanced_sampler
from monai_armed.networks.nets import CNN
from monai_armed.transforms import UntrackedCompose

__all__ = ["LAYER", "TRAININGS", "build_network", "eval_batches", "flips", "read_images", "reading", "train"]

LAYER = "dense"  # the layer whose output the last one reads
_KEYS = "image"
_FLIPS = [
    RandFlipd(_KEYS, prob=0.5, spatial_axis=0),
    RandFlipd(_KEYS, prob=0.5, spatial_axis=1),
    RandRotate90d(_KEYS, prob=0.5, max_k=1),
]
_NORMALIZE = NormalizeIntensityd(_KEYS, subtrahend=0.6, divisor=0.2)
# the strengths of the AD study's scanner augmentation
_COLOURS = [
    RandHistogramShiftd(_KEYS, num_control_points=6, prob=0.8),
    RandAdjustContrastd(_KEYS, prob=0.8, gamma=(0.6, 1.6)),
    RandBiasFieldd(_KEYS, prob=0.8, coeff_range=(-0.3, 0.3)),
    RandGaussianSmoothd(_KEYS, prob=0.5, sigma_x=(0.2, 1.0), sigma_y=(0.2, 1.0)),
    RandGaussianNoised(_KEYS, prob=0.5, std=0.05),
]
Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def build_network(size: int) -> CNN:
    """The network of all rows; its weights lie channels last, which is faster on the CPU."""
    network = CNN((3, size, size), channels=(16, 32, 64, 128), dense_channels=64, dropout=(0.0, 0.0, 0.1, 0.3))
    return network.to(memory_format=torch.channels_last)


def reading(size: int) -> Compose:
    """Reads the file of an ``image``: (3, size, size), normalised."""
    return Compose([*_from_file(size), _NORMALIZE, EnsureTyped(_KEYS, track_meta=False)])


def flips() -> Compose:
    """The random transforms of all trainings, with random states of their own."""
    return Compose(deepcopy(_FLIPS))


def _from_file(size: int) -> list[Transform]:
    """Up to pixels from 0 to 1."""
    return [
        LoadImaged(_KEYS, ensure_channel_first=True),
        Resized(_KEYS, (size, size), mode="area"),
        ScaleIntensityRanged(_KEYS, 0, 255, 0, 1, clip=True),
    ]


def read_images(table: pd.DataFrame, size: int) -> dict[str, torch.Tensor]:
    """Every image once, (3, size, size) from 0 to 1, by its path."""
    load = Compose([*_from_file(size), EnsureTyped(_KEYS, track_meta=False)])
    return {path: load({"image": path})["image"][:3] for path in tqdm(table["image"], desc="images")}


def eval_batches(part: pd.DataFrame, images: dict[str, torch.Tensor], size: int = 256) -> list[dict[str, Any]]:
    """Batches of ``image``, ``label`` and ``cluster``, in the order of the table and without augmentation."""
    plain = Compose([_NORMALIZE, EnsureTyped(_KEYS, track_meta=False)])
    return [
        plain(
            {
                "image": torch.stack([images[name] for name in rows["image"]]),
                "label": torch.tensor(rows["label"].to_numpy(), dtype=torch.float32).unsqueeze(1),
                "cluster": torch.tensor(rows["cluster"].to_numpy()),
            }
        )
        for rows in (part.iloc[start : start + size] for start in range(0, len(part), size))
    ]


def _rows(part: pd.DataFrame, images: dict[str, torch.Tensor]) -> list[dict[str, Any]]:
    return [
        {"image": images[row.image], "label": np.float32([row.label]), "cluster": row.cluster}
        for row in part.itertuples()
    ]


def cross_entropy(logit: torch.Tensor, label: torch.Tensor, cluster: torch.Tensor, latent: torch.Tensor):
    """The conventional loss."""
    return nn.functional.binary_cross_entropy_with_logits(logit, label)


class GroupDRO:
    """The worst groups of source and class count most (Sagawa et al. 2020, https://arxiv.org/abs/1911.08731)."""

    def __init__(self) -> None:
        self.weight: dict[int, float] = {}

    def __call__(self, logit: torch.Tensor, label: torch.Tensor, cluster: torch.Tensor, latent: torch.Tensor):
        losses = nn.functional.binary_cross_entropy_with_logits(logit, label, reduction="none").squeeze(1)
        group = cluster * 2 + label.squeeze(1).long()
        means = {int(g): losses[group == g].mean() for g in group.unique()}
        for g, mean in means.items():
            self.weight[g] = self.weight.get(g, 1.0) * math.exp(0.01 * float(mean.detach()))
        return sum(self.weight[g] * mean for g, mean in means.items()) / sum(self.weight[g] for g in means)


def coral(logit: torch.Tensor, label: torch.Tensor, cluster: torch.Tensor, latent: torch.Tensor):
    """Means and covariances of the sources' latents are pulled together (Sun and Saenko 2016, arXiv 1607.01719)."""
    loss = cross_entropy(logit, label, cluster, latent)
    of_each = [latent[cluster == c] for c in cluster.unique() if int((cluster == c).sum()) > 1]
    for i, a in enumerate(of_each):
        for b in of_each[:i]:
            loss = loss + (a.mean(0) - b.mean(0)).square().mean() + (torch.cov(a.T) - torch.cov(b.T)).square().mean()
    return loss


def vrex(logit: torch.Tensor, label: torch.Tensor, cluster: torch.Tensor, latent: torch.Tensor):
    """The variance of the sources' risks is added (Krueger et al. 2021, https://arxiv.org/abs/2003.00688)."""
    losses = nn.functional.binary_cross_entropy_with_logits(logit, label, reduction="none").squeeze(1)
    risks = torch.stack([losses[cluster == c].mean() for c in cluster.unique()])
    return risks.mean() + risks.var(unbiased=False)


# name: (random transforms, whether classes are balanced within each source, what makes the loss)
TRAININGS: dict[str, tuple[list, bool, Callable[[], Loss]]] = {
    "conventional": (_FLIPS, False, lambda: cross_entropy),
    "colour augmentation": (_FLIPS + _COLOURS, False, lambda: cross_entropy),
    "balanced sampling": (_FLIPS, True, lambda: cross_entropy),
    "GroupDRO": (_FLIPS, False, GroupDRO),
    "CORAL": (_FLIPS, False, lambda: coral),
    "V-REx": (_FLIPS, False, lambda: vrex),
}


def train(
    name: str, part: pd.DataFrame, images: dict[str, torch.Tensor], size: int, epochs: int, seed: int, device: str
) -> CNN:
    """One network by the rule ``name`` of :py:data:`TRAININGS`: 64 images a step, AdamW, one cycle."""
    transforms, balanced, make_loss = TRAININGS[name]
    torch.manual_seed(seed)
    preprocess = UntrackedCompose([*transforms, _NORMALIZE, EnsureTyped(_KEYS)]).set_random_state(seed)
    rows = _rows(part, images)
    sampler = balanced_sampler(rows, "cluster") if balanced else None
    data = CacheDataset(rows, preprocess, progress=False)
    loader = DataLoader(data, batch_size=64, shuffle=sampler is None, sampler=sampler, drop_last=True)
    network = build_network(size).to(device)
    latents: list[torch.Tensor] = []
    network.get_submodule(LAYER).register_forward_hook(lambda module, args, output: latents.append(output))
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=epochs * len(loader), pct_start=0.25)
    loss_of = make_loss()
    for _ in tqdm(range(epochs), desc=f"{name}, seed {seed}"):
        for batch in loader:
            label, cluster = batch["label"].to(device), batch["cluster"].to(device)
            latents.clear()
            loss = loss_of(network(batch["image"].to(device)), label, cluster, latents[0])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.get_submodule(LAYER)._forward_hooks.clear()
    return network.eval()
