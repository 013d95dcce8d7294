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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from tqdm import tqdm

from monai_armed.data.tolerant_loader import TolerantLoader
from monai_armed.networks.nets.armed_aec import ARMEDAEC

__all__ = ["write_cells"]

POPULATION = "population"
_WRITERS = 4  # threads
MOST_FOLDERS = 25  # of images as if from a batch, unless they are asked for


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
    (``batch`` and ``cell`` of each image, ``batch_known``, whether the batch is one of the model's, ``probability``
    and ``fixed_probability``: that of label 1, high metastatic efficiency in the melanoma set, by the mixed and by the
    fixed effects), and as PNG the reconstruction by fixed effects, ``fixed/``, and the images as if from each of the
    batches asked for, ``as_<batch>/``: among them ``"population"``, an image without its batch.

    Args:
        network: the trained network.
        loader: batches with ``image``, ``cluster``, and lists of ``file``, ``batch`` and ``cell``; what a
            :py:class:`monai_armed.data.TolerantLoader` has left out is reported at the end.
        batches: names of the seen batches in the order of their index.
        output_dir: folder to write to.
        as_batches: batches as which the images are shown; by default the population and all of them, of more than 24
            the first.
        device: where the network is.

    Raises:
        ValueError: when a batch asked for is none of the seen ones, or, at the end, when images could not be used.
    """
    index = {POPULATION: -1, **{name: j for j, name in enumerate(batches)}}
    shown = _shown(list(index), as_batches) if network.shows_clusters else []
    if unknown := [name for name in shown if name not in index]:
        raise ValueError(
            f"as_batches names {unknown}, but the model's batches are {list(batches)} ('{POPULATION}': none)."
        )
    folder, folder_of = Path(output_dir), _folder_names(index)
    network.eval()
    latents, tables = [], []
    taken: set[str] = set()
    for batch in tqdm(loader, desc="cells"):
        x, cluster = batch["image"].to(device), batch["cluster"].to(device)
        found = network.describe(x, cluster)
        latents.append(found["latent"].cpu().numpy())
        mixed, fixed = (found[name][:, 0].sigmoid() for name in ("mixed", "fixed"))
        names = [_new_name(file, taken) for file in batch["file"]]
        table = {key: batch[key] for key in ("file", "batch", "cell")}
        table |= {"batch_known": (cluster >= 0).tolist(), "image": names}
        tables.append(pd.DataFrame({**table, "probability": mixed.tolist(), "fixed_probability": fixed.tolist()}))
        _write_images(network.decode_fixed(found["latent"]), names, folder / "fixed")
        targets = [index[name] for name in shown]
        for name, images in zip(shown, network.show_as_each(x, cluster, targets)):
            _write_images(images, names, folder / folder_of[name])
    rows = pd.concat(tables, ignore_index=True)
    frame = pd.DataFrame(np.concatenate(latents)).rename(columns=lambda i: f"h{i}")
    frame.insert(0, "file", rows["file"])
    frame.to_csv(folder / "latents.csv", index=False)
    rows.to_csv(folder / "predictions.csv", index=False)
    print(
        f"{len(rows)} images: latents.csv, predictions.csv (probability of label 1), fixed/ and {len(shown)} folders "
        f"as_<batch>/ in {folder}"
    )
    if renamed := [f"{folder_of[name]} is of {name!r}" for name in shown if folder_of[name] != f"as_{name}"]:
        print("; ".join(renamed))
    if isinstance(loader, TolerantLoader):
        loader.report(folder)


def _shown(names: Sequence[str], as_batches: Sequence[str] | None) -> list[str]:
    if as_batches is not None:
        return [str(name) for name in as_batches]
    if len(names) > MOST_FOLDERS:
        print(f"{len(names) - 1} batches: images are shown as the first {MOST_FOLDERS - 1}; name others by as_batches.")
    return list(names[:MOST_FOLDERS])


def _folder_names(names: Iterable[str]) -> dict[str, str]:
    """A folder for each batch, of its own also where names differ in what no folder's name can have."""
    taken: set[str] = set()
    return {name: _distinct("as_" + re.sub(r"[^\w.-]", "_", name), taken) for name in names}


def _new_name(file: str, taken: set[str]) -> str:
    """Name of an image's PNG: that of its file, with a number where another folder has a file of that name."""
    return f"{_distinct(Path(file).stem, taken)}.png"


def _distinct(name: str, taken: set[str]) -> str:
    """A name that no other one is, also for disks that do not tell cases apart; with a number if need be."""
    numbered = (f"{name}_{k}" for k in itertools.count(2))
    new = name
    while new.casefold() in taken:
        new = next(numbered)
    taken.add(new.casefold())
    return new


def _write_images(images: torch.Tensor, names: Sequence[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    grey = (images[:, 0].clamp(0, 1) * 255).round().byte().cpu().numpy()
    with ThreadPoolExecutor(_WRITERS) as pool:  # compressing and writing leave Python's lock to others
        list(pool.map(lambda image, name: Image.fromarray(image).save(folder / name), grey, names))
