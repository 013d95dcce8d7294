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

"""From raw T1-weighted scans to what the AD bundle trains on: ``python -m monai_armed preprocess``."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import pandas as pd
from monai.data import MetaTensor
from monai.transforms import CropForeground, ScaleIntensityRangePercentiles
from PIL import Image

from monai_armed.data.bids import list_bids_images
from monai_armed.data.replaced_file import write_text
from monai_armed.studies.ad_mri.prepared_study import write_study
from monai_armed.studies.ad_mri.scan_check import MIN_SIMILARITY, STATUSES, judge_scan, usable
from monai_armed.studies.ad_mri.scan_processes import in_processes
from monai_armed.studies.ad_mri.scan_task import ScanTask
from monai_armed.transforms.coronal_slice import CoronalSlice
from monai_armed.transforms.io import LoadVolumed
from monai_armed.transforms.register_to_template import HIPPOCAMPUS, RegisterToTemplate
from monai_armed.transforms.skull_strip import SkullStrip

__all__ = ["preprocess", "preprocess_scan", "summary"]

COLUMNS = (
    "scan",
    "status",
    "reason",
    "remarks",
    "similarity",
    "brain_volume_ml",
    "axes_in_header",
    "axes",
    "cpu_seconds",
)
SLICER = CoronalSlice(y=HIPPOCAMPUS[1], size=192, pixel_size=1.0)


def preprocess(
    dataset_dir: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    registration: str = "affine",
    processes: int = 1,
    min_similarity: float = MIN_SIMILARITY,
    keep: Sequence[str] = (),
) -> pd.DataFrame:
    """
    Prepare all T1-weighted scans of a BIDS tree as in Section 3.3.2 of https://arxiv.org/abs/2202.11783: skull
    stripping, registration to the ICBM152 template, the point in the right hippocampus carried back by the inverse
    transform, and the coronal slice through it. ``output_dir`` becomes a BIDS tree of the aligned brains, with the
    raw one's ``participants.tsv``, that the AD bundle takes as its ``dataset_dir``; beside them are ``slices``,
    ``quality.csv``, ``quality_1.png`` and so on, and ``datalist.csv``. What is already there is not done again.

    Args:
        dataset_dir: folder with ``sub-*/[ses-*/]anat/*_T1w.nii[.gz]``.
        output_dir: folder for the results.
        registration: ``"rigid"``, ``"affine"`` or ``"syn"``.
        processes: how many scans are worked on at a time, each by a process with 1.5 GB of memory.
        min_similarity: least similarity with the template.
        keep: names of scans that are kept whatever the check says: subjects, files or paths, with ``*`` for any part.

    Returns:
        the quality table, a row a scan: ``status``, one of
        :py:data:`monai_armed.studies.ad_mri.scan_check.STATUSES`; ``reason``; ``remarks``.

    Raises:
        FileNotFoundError: when there is no scan.
        ValueError: when both folders are the same, the output is a file, ``min_similarity`` is no correlation, or a
            name in ``keep`` is of no scan.
    """
    source, output = Path(dataset_dir).resolve(), Path(output_dir).resolve()
    if source == output:
        raise ValueError(f"the results cannot go where the raw scans are, {source}; give another output folder.")
    if output.is_file():
        raise ValueError(f"{output} is a file: give a folder for the results.")
    if not -1 <= min_similarity <= 1:
        raise ValueError(f"min_similarity is a correlation, from -1 to 1, got {min_similarity}.")
    tasks = _tasks(source, output, registration, min_similarity, keep)
    # with one thread ITK repeats exactly; scans, not threads, share the cores
    os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")
    records = {task.name: record for task in tasks if (record := _finished(task))}
    waiting = [task for task in tasks if task.name not in records]
    if records:
        print(f"{len(records)} of {len(tasks)} scans were done before")
    if waiting:
        _transforms(registration)  # a missing package ends it here, before the first scan
    for task, result in in_processes(preprocess_scan, waiting, processes):
        record = result or _failed(task, "its process was killed, perhaps for want of memory.")
        records[task.name] = record
        told = "; ".join(record[name] for name in ("reason", "remarks") if record[name])
        print(f"[{len(records)}/{len(tasks)}] {task.name}: {record['status']}{told and ': '}{told}", flush=True)
    table = pd.DataFrame([records[task.name] for task in tasks], columns=list(COLUMNS))
    brains = [task.brain for task in tasks]
    write_study(source, output, table, brains, [task.slice for task in tasks], SLICER.pixel(HIPPOCAMPUS))
    return table


def _tasks(source: Path, output: Path, registration: str, min_similarity: float, keep: Sequence[str]) -> list[ScanTask]:
    tasks = []
    for scan in list_bids_images(source):
        task = ScanTask(scan, source, output, registration, min_similarity)
        kept = any(task.is_named(pattern) for pattern in keep)
        tasks.append(ScanTask(scan, source, output, registration, min_similarity, kept))
    if not tasks:
        raise FileNotFoundError(f"no scan sub-*/[ses-*/]anat/*_T1w.nii[.gz] found in {source}.")
    for pattern in keep:
        if not any(task.is_named(pattern) for task in tasks):
            raise ValueError(f"keep names {pattern!r}, but there is no such scan in {source}.")
    return tasks


def _finished(task: ScanTask) -> dict[str, Any] | None:
    """The record of an earlier run, as it is judged now, if the same settings made it and what it needs is there."""
    try:
        record: dict[str, Any] = json.loads(task.record.read_text(encoding="utf-8"))
        if record.get("settings") != task.settings():
            return None
    except (OSError, ValueError):
        return None
    record |= judge_scan(record, task.min_similarity, task.keep)
    if not usable(record["status"]):
        task.brain.unlink(missing_ok=True)
    elif not task.brain.is_file():
        return None
    return record


def _failed(task: ScanTask, reason: str) -> dict[str, Any]:
    return {**dict.fromkeys(COLUMNS), "scan": task.name, "status": "left out", "reason": reason, "remarks": ""}


@lru_cache(maxsize=1)
def _transforms(registration: str) -> tuple[LoadVolumed, SkullStrip, RegisterToTemplate]:
    return LoadVolumed("image", ensure_channel_first=True), SkullStrip(), RegisterToTemplate(registration)


def preprocess_scan(task: ScanTask) -> dict[str, Any]:
    """
    Prepare one scan and write its volume, slice and record.

    Args:
        task: the scan.

    Returns:
        its record: the columns of the quality table, what they come from, and its settings. What is wrong with the
        scan is in ``reason``; it is done again in the next run only if the error was not the scan's.
    """
    start = time.process_time()
    record: dict[str, Any] = dict.fromkeys(COLUMNS) | {"scan": task.name, "settings": task.settings()}
    its_own = True
    try:
        for old in (task.brain, task.record, task.slice):
            old.parent.mkdir(parents=True, exist_ok=True)
            old.unlink(missing_ok=True)
        brain = _align(task, record)
        _save_slice(brain, task.slice)
        if usable(judge_scan(record, task.min_similarity, task.keep)["status"]):
            _save_volume(brain, task)
    except (ValueError, FileNotFoundError) as error:
        record["error"] = str(error)
    except Exception as error:  # such as too little memory: told by name, and tried again in the next run
        its_own, record["error"] = False, f"{type(error).__name__}: {error}"
    record |= judge_scan(record, task.min_similarity, task.keep)
    record["cpu_seconds"] = round(time.process_time() - start, 1)
    if its_own:
        write_text(json.dumps(record, indent=2), task.record)
    return record


def _align(task: ScanTask, record: dict[str, Any]) -> MetaTensor:
    """The aligned brain; what is measured on the way goes into the record, as far as it gets."""
    load, strip, register = _transforms(task.registration)
    head = load({"image": str(task.scan)})["image"]
    record["axes_in_header"] = _axes(head)
    record["voxel_mm"] = np.linalg.norm(np.asarray(head.affine)[:3, :3], axis=0).round(3).tolist()
    brain = strip(head)
    record["brain_volume_ml"] = brain.meta["brain_volume"]
    brain = register(brain)
    record["turned"] = brain.meta["registration"]["turned"]
    if record["turned"]:
        head.affine = brain.affine  # deepbet learned from upright heads: strip it again, now that it is put right
        brain = max(brain, register(strip(head)), key=_similarity)
        record["brain_volume_ml"] = brain.meta["brain_volume"]
    record |= {"axes": _axes(brain), "similarity": _similarity(brain)}
    record["missing"] = brain.meta["registration"]["missing"]
    return cast(MetaTensor, CropForeground(margin=2, allow_smaller=True)(brain))


def _similarity(brain: MetaTensor) -> float:
    return float(brain.meta["registration"]["similarity"])


def _axes(image: MetaTensor) -> str:
    return "".join(map(str, nib.aff2axcodes(np.asarray(image.affine))))


def _save_slice(brain: MetaTensor, file: Path) -> None:
    scale = ScaleIntensityRangePercentiles(2, 98, 0, 255, clip=True)
    pixels = np.asarray(scale(SLICER(brain))[0]).round().astype(np.uint8)
    Image.fromarray(pixels).save(file)


def _save_volume(brain: MetaTensor, task: ScanTask) -> None:
    image = nib.Nifti1Image(brain[0].numpy(), np.asarray(brain.affine))
    image.set_data_dtype(np.int16)
    unfinished = task.brain.with_name(f".{task.brain.name}")  # nibabel goes by the ending, listings by the dot
    nib.save(image, unfinished)
    unfinished.replace(task.brain)


def summary(table: pd.DataFrame) -> str:
    """How many scans there are of each status."""
    counts = Counter(table["status"])
    told = [f"{counts[name]} {name}" for name in reversed(STATUSES) if counts[name] or name != "kept"]
    return f"{len(table)} scans: " + ", ".join(told)
