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

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from tqdm import tqdm

from monai_armed.networks.nets.armed_aec import ARMEDAEC

__all__ = ["write_cells"]

POPULATION = "population"


@torch.no_grad()
def write_cells(
    network: ARMEDAEC,
    loader: Iterable[Mapping],
    batches: Sequence[str],
    output_dir: str | Path,
    as_batches: Sequence[str] | None = None,
    device: str | torch.device = "cpu",
) -> None:
    """
    What inference leaves of a folder of images: ``latents.csv`` (the fixed latents), ``predictions.csv``
    (``probability`` and ``fixed_probability``: that of label 1, high metastatic efficiency in the melanoma set, by the
    mixed and by the fixed effects), and as PNG the reconstruction by fixed effects, ``fixed/``, and the images as if
    from each of the batches asked for, ``as_<batch>/``: among them ``"population"``, an image without its batch.

    Args:
        network: the trained network.
        loader: batches with ``image``, ``cluster`` and a list of ``file``.
        batches: names of the seen batches in the order of their index.
        output_dir: folder to write to.
        as_batches: batches as which the images are shown; the population and all of them by default.
        device: where the network is.

    Raises:
        ValueError: when a batch asked for is none of the seen ones.
    """
    index = {POPULATION: -1, **{name: j for j, name in enumerate(batches)}}
    shown = [] if network.random is None else list(index if as_batches is None else as_batches)
    if unknown := [name for name in shown if name not in index]:
        raise ValueError(
            f"as_batches names {unknown}, but the model's batches are {list(batches)} ('{POPULATION}': none)."
        )
    folder = Path(output_dir)
    network.eval()
    latents, rows = [], []
    taken: set[str] = set()
    for batch in tqdm(loader, desc="cells"):
        x, cluster = batch["image"].to(device), batch["cluster"].to(device)
        latent = network.fixed.encode(x)
        latents.append(latent.cpu().numpy())
        mixed, fixed = network(x, cluster)[:, 0].sigmoid(), network.fixed.classify(latent)[:, 0].sigmoid()
        names = [_new_name(file, taken) for file in batch["file"]]
        rows += [
            {"file": f, "image": n, "probability": p, "fixed_probability": q}
            for f, n, p, q in zip(batch["file"], names, mixed.tolist(), fixed.tolist())
        ]
        _write_images(network.decode_fixed(latent), names, folder / "fixed")
        for name in shown:
            as_cluster = torch.full_like(cluster, index[name])
            shown_as = network.reconstruct(x, cluster, as_cluster=as_cluster)
            _write_images(shown_as, names, folder / ("as_" + re.sub(r"[^\w.-]", "_", name)))
    frame = pd.DataFrame(np.concatenate(latents)).rename(columns=lambda i: f"h{i}")
    frame.insert(0, "file", [row["file"] for row in rows])
    frame.to_csv(folder / "latents.csv", index=False)
    pd.DataFrame(rows).to_csv(folder / "predictions.csv", index=False)
    print(
        f"{len(rows)} images: latents.csv, predictions.csv (probability of label 1), fixed/ and {len(shown)} folders "
        f"as_<batch>/ in {folder}"
    )


def _new_name(file: str, taken: set[str]) -> str:
    """Name of an image's PNG: that of its file, with a number where another folder has a file of that name."""
    stem = Path(file).stem
    numbered = (f"{stem}_{k}" for k in itertools.count(2))
    name = stem
    while name in taken:
        name = next(numbered)
    taken.add(name)
    return f"{name}.png"


def _write_images(images: torch.Tensor, names: Sequence[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for image, name in zip((images[:, 0].clamp(0, 1) * 255).round().byte().cpu().numpy(), names):
        Image.fromarray(image).save(folder / name)
