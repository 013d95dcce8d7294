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

"""Cell-wise partitions of microscope images, the simulated ones or a user's."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_armed.data.held_out import held_out
from monai_armed.data.reading import READING, reading_options
from monai_armed.data.sample_marks import study_name
from monai_armed.data.splits import check_several_clusters, split_seen_unseen
from monai_armed.studies.cells.images import read_cells

__all__ = ["LEAST_CELLS", "cell_partitions"]

KEYS = {"clusters": "batches", "cluster": "batch", "subject": "cell"}

LEAST_CELLS = 200
"""Training cells below which a warning is given. The bundle's figures are of 364; 32 gave blobs in place of cells."""

# Of ten cells in a row 7 train, 1 validates and 2 test, and of two neighbours at least one trains.
_TURNS = ("train", "train", "test", "train", "train", "val", "train", "train", "test", "train")


def cell_partitions(
    dataset_dir: str | os.PathLike[str],
    simulate: Mapping[str, Any] | None = None,
    seed: int = 0,
    seen_batches: Collection[str] | None = None,
    min_cells: int | None = None,
    trained: Mapping[str, Any] | None = None,
    reading: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Read cell images and divide them: 70 / 10 / 20 % of the cells of seen batches for training, validation and test.

    All frames of a cell are in one partition (Section 3.4). Each batch and, in it, each label is divided in the same
    shares as nearly as its number of cells allows, and every seen batch has at least one cell for training, which
    takes two cells. A batch with a single cell is therefore unseen by default. A warning says where fewer than
    :py:data:`LEAST_CELLS` cells train. With a model that is trained, seen are its batches, and test cells those that it
    was not trained on, see :py:func:`monai_armed.data.held_out.held_out`: of another study than the model's all cells
    are unseen.

    Args:
        dataset_dir: folder or CSV as :py:func:`read_cells` takes it.
        simulate: if given, the folder is filled with simulated cells first; arguments of
            :py:func:`monai_armed.studies.cells.simulator.simulate_cells` but for the folder.
        seed: seed of the division.
        seen_batches: names of the seen batches. By default the column ``seen`` says it; without that column, or where
            ``min_cells`` is given, those with at least ``min_cells`` cells. With a model that is trained: those of its
            batches that the data are of, which says that they are of the model's study.
        min_cells: see ``seen_batches``; 2 by default. The paper's own choice, batches with at least two PDXs imaged
            (Section 3.4), can be given as ``seen_batches``.
        trained: what a model was trained on, from :py:func:`monai_armed.data.held_out.provenance`.
        reading: ``diagnoses``, ``diagnosis_column``, ``site_column``, ``subject_column``, ``image_column`` and
            ``labels`` of :py:func:`read_cells`, by name.

    Returns:
        ``"train"``, ``"val"``, ``"test"`` and ``"unseen"``, each a MONAI data list; ``"batches"``, the names of
        the seen batches in the order of their cluster index; and ``"study"``, which data these are, see
        :py:func:`monai_armed.data.sample_marks.study_name`.

    Raises:
        ValueError: when fewer than two batches are seen, a seen batch has a single cell or no image, both
            ``seen_batches`` and ``min_cells`` are given, ``seen_batches`` are not those of the trained model, or there
            is nothing that it was not trained on.
    """
    if seen_batches is not None and min_cells is not None:
        raise ValueError("give seen_batches or min_cells, not both.")
    if simulate is not None:
        from monai_armed.studies.cells.simulator import simulate_cells

        simulate_cells(dataset_dir, **simulate)
    datalist = read_cells(dataset_dir, **reading_options(reading, (*READING, "labels")))
    study = study_name(datalist, KEYS, Path(dataset_dir) / "truth" / "simulation.json")
    about = {"study": study, "keys": KEYS}
    if trained is not None:
        parts = held_out(datalist, trained, study, KEYS, seen_batches)
        return {**parts, "batches": list(trained["clusters"]), **about}
    if seen_batches is None:
        seen_batches = _default_seen(datalist, min_cells)
    seen, unseen = split_seen_unseen(datalist, seen_batches, site_key="batch")
    single = sorted(batch for batch, count in _count_cells(seen).items() if count < 2)
    if single:
        raise ValueError(f"the seen batches {single} have a single cell; make them unseen, for two are needed.")
    batches = sorted({item["batch"] for item in seen})
    check_several_clusters(batches, "batch", dataset_dir)
    partitions = _deal_cells(seen, seed)
    _warn_of_few_cells(partitions["train"])
    _warn_of_missing_labels(partitions)
    return {**partitions, "unseen": unseen, "batches": batches, **about}


def _count_cells(datalist: Iterable[Mapping[str, Any]]) -> Counter[str]:
    return Counter(batch for batch, _ in {(item["batch"], item["cell"]) for item in datalist})


def _default_seen(datalist: Sequence[Mapping[str, Any]], min_cells: int | None) -> list[str]:
    if "seen" in datalist[0] and min_cells is None:
        return sorted({item["batch"] for item in datalist if item["seen"]})
    least = 2 if min_cells is None else min_cells
    counts = _count_cells(datalist)
    seen = sorted(batch for batch, count in counts.items() if count >= least)
    if not seen:
        raise ValueError(f"no batch has {least} cells (the largest has {max(counts.values())}), so none can be seen.")
    return seen


def _deal_cells(datalist: Sequence[dict[str, Any]], seed: int) -> dict[str, list[dict[str, Any]]]:
    """Give each cell its turn, batch by batch; every second batch begins with the other label."""
    generator = np.random.default_rng(seed)
    place = {batch: n for n, batch in enumerate(generator.permutation(sorted({item["batch"] for item in datalist})))}
    cells = sorted({(item["batch"], item["label"], item["cell"]) for item in datalist})
    shuffled = [cells[i] for i in generator.permutation(len(cells))]
    ordered = sorted(shuffled, key=lambda cell: (place[cell[0]], cell[1] * (-1) ** place[cell[0]]))
    start = int(generator.integers(len(_TURNS)))
    partition_of = {
        (batch, cell): _TURNS[(start + turn) % len(_TURNS)] for turn, (batch, _, cell) in enumerate(ordered)
    }
    partitions: dict[str, list[dict[str, Any]]] = {"train": [], "val": [], "test": []}
    for item in datalist:
        partitions[partition_of[item["batch"], item["cell"]]].append(item)
    return partitions


def _warn_of_few_cells(train: Iterable[Mapping[str, Any]]) -> None:
    cells = sum(_count_cells(train).values())
    if cells < LEAST_CELLS:
        warnings.warn(
            f"{cells} cells are few to train on: with fewer than {LEAST_CELLS} the network may show blobs, and cells "
            "where there are none; compare its pictures with the images, and give more cells or train with "
            "few_cells.json.",
            stacklevel=3,
        )


def _warn_of_missing_labels(partitions: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    missing = {name: sorted({0, 1} - {item["label"] for item in items}) for name, items in partitions.items()}
    short = [f"{name} has no image with label {' or '.join(map(str, none))}" for name, none in missing.items() if none]
    if short:
        warnings.warn(
            f"{'; '.join(short)}: there the phenotype can be neither learned nor measured; give more cells or another "
            "seed.",
            stacklevel=3,
        )
