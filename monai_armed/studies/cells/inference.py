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
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from tqdm import tqdm

from monai_armed.data.kept_rows import KeptRows
from monai_armed.data.names import name_key
from monai_armed.data.replaced_file import replaced_file, write_csv
from monai_armed.data.tolerant_loader import TolerantLoader
from monai_armed.metrics.calibration_file import read_calibrations
from monai_armed.networks.nets.armed_aec import ARMEDAEC
from monai_armed.networks.training_distance import distance_columns, warn_of_distance
from monai_armed.studies.cells.new_batches import with_sets

__all__ = ["write_cells"]

POPULATION = "population"
MOST_FOLDERS = 25  # of images as if from a batch, unless they are asked for


@torch.no_grad()
def write_cells(
    network: ARMEDAEC,
    loader: Iterable[Mapping],
    batches: Sequence[str],
    output_dir: str | Path,
    as_batches: Sequence[str] | None = None,
    ckpt_path: str | Path | None = None,
    device: str | torch.device = "cpu",
    kept: KeptRows | None = None,
) -> None:
    """
    What inference leaves of a folder of images: ``latents.csv`` (the fixed latents), ``predictions.csv``
    (``batch`` and ``cell`` of each image, ``batch_known``, whether the batch is one of the model's, ``probability``
    and ``fixed_probability``: that of label 1, high metastatic efficiency in the melanoma set, by the mixed and by the
    fixed effects; whether the image is unlike those of training), and as PNG the reconstruction by fixed effects,
    ``fixed/``, and the images as if from each of the batches asked for, ``as_<batch>/``: among them ``"population"``,
    an image without its batch.

    Args:
        network: the trained network.
        loader: batches with ``image``, ``cluster``, and lists of ``file``, ``batch`` and ``cell``; what a
            :py:class:`monai_armed.data.TolerantLoader` has left out is reported at the end.
        batches: names of the seen batches in the order of their index.
        output_dir: folder to write to.
        as_batches: batches as which the images are shown; by default the population and all of them, of more than 24
            the first.
        ckpt_path: the model's file; where a ``calibration.json`` lies beside it, images of unknown batches have a
            ``calibrated_probability`` and a ``prediction_set``, which covers for new batches.
        device: where the network is.
        kept: keeps the rows until all are there; the loader's, so that an interrupted run goes on where it was.

    Raises:
        ValueError: when a batch asked for is none of the seen ones, a calibration is another model's, or, at the end,
            when images could not be used.
    """
    index = {POPULATION: -1, **{name: j for j, name in enumerate(batches)}}
    shown = _shown(list(index), as_batches) if network.shows_clusters else []
    calibrations = {} if ckpt_path is None else read_calibrations(ckpt_path)
    folder, folder_of = Path(output_dir), _folder_names(index)
    network.eval()
    kept = KeptRows() if kept is None else kept
    taken: set[str] = set()
    targets, waiting = [index[name] for name in shown], _Waiting(kept)
    for batch in tqdm(loader, desc="cells"):
        x, cluster = batch["image"].to(device), batch["cluster"].to(device)
        found, distances = _described(network, x, cluster)
        mixed, fixed = (found[name][:, 0].sigmoid() for name in ("mixed", "fixed"))
        taken = taken or {row["image"] for row in kept.rows}  # the loader has taken over an interrupted run's
        names = [_new_name(file, taken) for file in batch["file"]]
        table = {key: batch[key] for key in ("file", "batch", "cell")}
        table |= {"batch_known": (cluster >= 0).tolist(), "image": names}
        table |= {"probability": mixed.tolist(), "fixed_probability": fixed.tolist(), **distances}
        made = with_sets(pd.DataFrame(table), found["mixed"], next(iter(calibrations.values()), None))
        made["latent"] = found["latent"].cpu().tolist()
        without = network.decode_fixed(found["latent"])
        waiting.finish()  # at most the images of one batch are in memory
        waiting.write(without, names, folder / "fixed")
        for name, images in zip(shown, network.show_as_each(x, cluster, targets, found.get("light"))):
            waiting.write(images, names, folder / folder_of[name])
        waiting.rows = [{str(name): value for name, value in row.items()} for row in made.to_dict("records")]
    waiting.finish()
    rows = pd.DataFrame(kept.table())
    frame = pd.DataFrame(rows.pop("latent").tolist(), dtype=np.float32).rename(columns=lambda i: f"h{i}")
    frame.insert(0, "file", rows["file"])
    write_csv(frame, folder / "latents.csv")
    write_csv(rows, folder / "predictions.csv")
    kept.finish()
    _report(rows, folder, {name: folder_of[name] for name in shown})
    if isinstance(loader, TolerantLoader):
        loader.report(folder)


def _described(network: ARMEDAEC, x: torch.Tensor, cluster: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict]:
    """What the network says of images, and their columns of the distance, for which known batches need another pass."""
    distance = getattr(network, "training_distance", None)
    if distance is None or (cluster >= 0).any():
        return network.describe(x, cluster), distance_columns(network, x)
    with distance.watch(network, x) as far:
        found = network.describe(x, cluster)
    return found, distance_columns(network, x, *far)


def _report(rows: pd.DataFrame, folder: Path, shown: Mapping[str, str]) -> None:
    """Say what was written, which folder is of which batch, and which images are unlike those of training."""
    print(
        f"{len(rows)} images: latents.csv, predictions.csv (probability of label 1), fixed/ and {len(shown)} folders "
        f"as_<batch>/ in {folder}"
    )
    written = set(shown.values())
    if others := sorted(path.name for path in folder.glob("as_*") if path.is_dir() and path.name not in written):
        print(f"{', '.join(others)} in {folder} {'are' if len(others) > 1 else 'is'} of an earlier run")
    if renamed := [f"{own} is of {name!r}" for name, own in shown.items() if own != f"as_{name}"]:
        print("; ".join(renamed))
    if "unlike_training" in rows:
        warn_of_distance(rows["file"].tolist(), rows["unlike_training"].tolist())


def _shown(names: Sequence[str], as_batches: Sequence[str] | None) -> list[str]:
    if isinstance(as_batches, str):
        raise ValueError(f"as_batches must be a list of names of batches, got the string {as_batches!r}.")
    if as_batches is not None:
        own = {name_key(name): name for name in names} | {name: name for name in names}
        asked = {str(name): own.get(str(name), own.get(name_key(name))) for name in as_batches}
        if unknown := [name for name, found in asked.items() if found is None]:
            raise ValueError(
                f"as_batches names {unknown}, but the model's batches are {list(names[1:])} ('{POPULATION}': none)."
            )
        return [name for name in asked.values() if name is not None]
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


class _Waiting:
    """
    The images of a batch, which are written while the next batch is predicted, and its rows, which are kept once they
    are. One thread is enough: more spend their time waiting for Python's lock.
    """

    def __init__(self, kept: KeptRows) -> None:
        self.kept, self.rows = kept, list[dict[str, Any]]()
        self._thread, self._written = ThreadPoolExecutor(1), list[Future]()

    def write(self, images: torch.Tensor, names: Sequence[str], folder: Path) -> None:
        grey = (images[:, 0].clamp(0, 1) * 255).round().byte().cpu().numpy()
        self._written.append(self._thread.submit(_write_images, grey, names, folder))

    def finish(self) -> None:
        for written in self._written:
            written.result()
        if self.rows:
            self.kept.add(self.rows)
        self.rows, self._written = [], []


def _write_images(grey: np.ndarray, names: Sequence[str], folder: Path) -> None:
    for image, name in zip(grey, names):
        with replaced_file(folder / name) as file:
            Image.fromarray(image).save(file, format="png")
