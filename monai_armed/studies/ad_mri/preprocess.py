# Copyright (c) the monai_armed authors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and

"""From raw T1-weighted scans to what the AD bundle trains on: ``python -m monai_armed preprocess``."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from monai.data import MetaTensor
from monai.transforms import CropForeground, ScaleIntensityRangePercentiles
from PIL import Image

from monai_armed import __version__
from monai_armed.data.bids import list_bids_images, load_bids_datalist
from monai_armed.studies.ad_mri.quality_sheet import plot_quality_sheets
from monai_armed.transforms.coronal_slice import CoronalSlice
from monai_armed.transforms.io import LoadVolumed
from monai_armed.transforms.register_to_template import HIPPOCAMPUS, RegisterToTemplate
from monai_armed.transforms.skull_strip import SkullStrip

__all__ = ["BRAIN_VOLUMES", "MIN_SIMILARITY", "ScanTask", "preprocess", "preprocess_scan"]

BRAIN_VOLUMES = (700.0, 2300.0)
"""Least and greatest volume in ml, fluid included, of what is taken for a brain."""

MIN_SIMILARITY = 0.5
"""Least similarity with the template. Phantoms, noise and a neck had at most 0.38, Colin27 with noise 0.66 or more."""

COLUMNS = ("scan", "status", "reason", "similarity", "brain_volume_ml", "axes_in_header", "axes", "cpu_seconds")
SLICER = CoronalSlice(y=HIPPOCAMPUS[1], size=192, pixel_size=1.0)


@dataclass(frozen=True)
class ScanTask:
    """One scan and where its results go.

    Args:
        scan: raw file below ``dataset_dir``.
        dataset_dir: folder of the raw scans.
        output_dir: folder of the results.
        registration: see :class:`monai_armed.transforms.RegisterToTemplate`.
    """

    scan: Path
    dataset_dir: Path
    output_dir: Path
    registration: str

    @property
    def name(self) -> str:
        """Path of the scan in its dataset."""
        return self.scan.relative_to(self.dataset_dir).as_posix()

    def file(self, ending: str) -> Path:
        """File beside the results' volume, such as that with ``ending`` ``"_desc-brain_T1w.json"``."""
        stem = self.scan.name.removesuffix(".gz").removesuffix(".nii").removesuffix("_T1w")
        return self.output_dir / self.scan.parent.relative_to(self.dataset_dir) / f"{stem}{ending}"

    @property
    def brain(self) -> Path:
        """The skull-stripped, aligned volume."""
        return self.file("_desc-brain_T1w.nii.gz")

    @property
    def record(self) -> Path:
        """What is known of the scan, as JSON."""
        return self.file("_desc-brain_T1w.json")

    @property
    def slice(self) -> Path:
        """The coronal slice, as a picture."""
        return self.output_dir / "slices" / self.file("_T1w.png").name

    def settings(self) -> dict[str, Any]:
        """What the result depends on: where it is as in the record, nothing is done again."""
        state = self.scan.stat()
        return {
            "registration": self.registration,
            "bytes": state.st_size,
            "modified": state.st_mtime_ns,
            "version": __version__,
        }


def preprocess(
    dataset_dir: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    registration: str = "affine",
    processes: int = 1,
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

    Returns:
        the quality table, a row a scan: ``status`` ``"ok"``, ``"turned"`` (put right) or ``"left out"``; ``reason``.

    Raises:
        FileNotFoundError: when there is no scan.
        ValueError: when both folders are the same, the output is a file, or two scans would have the same results.
    """
    source, output = Path(dataset_dir).resolve(), Path(output_dir).resolve()
    if source == output:
        raise ValueError(f"the results cannot go where the raw scans are, {source}; give another output folder.")
    if output.is_file():
        raise ValueError(f"{output} is a file: give a folder for the results.")
    tasks = [ScanTask(scan, source, output, registration) for scan in list_bids_images(source)]
    if not tasks:
        raise FileNotFoundError(f"no scan sub-*/[ses-*/]anat/*_T1w.nii[.gz] found in {source}.")
    owner: dict[Path, ScanTask] = {}
    for task in tasks:
        for result in (task.brain, task.slice):
            if (first := owner.setdefault(result, task)) is not task:
                raise ValueError(
                    f"{first.name} and {task.name} would both become {result.relative_to(output)}: keep one of them, "
                    "or name them sub-*_ses-*_T1w.nii.gz as BIDS does."
                )
    # with one thread ITK repeats exactly; scans, not threads, share the cores
    os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")
    records = {task.name: record for task in tasks if (record := _finished(task))}
    waiting = [task for task in tasks if task.name not in records]
    if records:
        print(f"{len(records)} of {len(tasks)} scans were done before")
    if waiting:
        _transforms(registration)  # a missing package ends it here, before the first scan
    for task, record in _work(preprocess_scan, waiting, processes):
        records[task.name] = record
        told = f"{record['status']}: {record['reason']}" if record["reason"] else record["status"]
        print(f"[{len(records)}/{len(tasks)}] {task.name}: {told}", flush=True)
    table = pd.DataFrame([records[task.name] for task in tasks], columns=list(COLUMNS))
    _write_study(tasks, table)
    return table


def _write_study(tasks: Sequence[ScanTask], table: pd.DataFrame) -> None:
    """What is said of all scans together."""
    source, output = tasks[0].dataset_dir, tasks[0].output_dir
    output.mkdir(parents=True, exist_ok=True)
    table.round({"similarity": 4, "brain_volume_ml": 1}).to_csv(output / "quality.csv", index=False)
    plot_quality_sheets(table, [task.slice for task in tasks], SLICER.pixel(HIPPOCAMPUS), output)
    described = {
        "Name": f"{source.name}, skull-stripped and aligned with MNI space",
        "BIDSVersion": "1.9.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "monai_armed", "Version": __version__}],
    }
    (output / "dataset_description.json").write_text(json.dumps(described, indent=2), encoding="utf-8")
    datalist = output / "datalist.csv"
    datalist.unlink(missing_ok=True)
    if (source / "participants.tsv").is_file():
        shutil.copy(source / "participants.tsv", output)
    usable = {str(task.brain) for task, status in zip(tasks, table["status"]) if status != "left out"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # subjects without a volume: the quality table tells why
            listed = load_bids_datalist(output)
    except (ValueError, FileNotFoundError) as error:
        print(f"no data list: {error}")
        return
    rows = pd.DataFrame([item for item in listed if item["image"] in usable], columns=list(listed[0]))
    for volumes, what in (
        (usable - set(rows["image"]), "have no row in participants.tsv and are not in datalist.csv"),
        (
            {item["image"] for item in listed} - usable,
            "are of scans that are gone and not in datalist.csv: delete them",
        ),
    ):
        if volumes:
            print(f"{len(volumes)} volumes {what} (first: {Path(min(volumes)).relative_to(output)}).")
    rows["image"] = [Path(image).relative_to(output).as_posix() for image in rows["image"]]
    rows.to_csv(datalist, index=False)


def _finished(task: ScanTask) -> dict[str, Any] | None:
    """The record of an earlier run, if the same settings made it and its volume is there."""
    try:
        record: dict[str, Any] = json.loads(task.record.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    there = record.get("status") == "left out" or task.brain.is_file()
    return record if there and record.get("settings") == task.settings() else None


@lru_cache(maxsize=1)
def _transforms(registration: str) -> tuple[LoadVolumed, SkullStrip, RegisterToTemplate]:
    return LoadVolumed("image", ensure_channel_first=True), SkullStrip(), RegisterToTemplate(registration)


def preprocess_scan(task: ScanTask) -> dict[str, Any]:
    """
    Prepare one scan and write its volume, slice and record.

    Args:
        task: the scan.

    Returns:
        its record: the columns of the quality table, and its settings. What is wrong with the scan is in ``reason``;
        it is done again in the next run only if the error was not the scan's.
    """
    start = time.process_time()
    task.record.parent.mkdir(parents=True, exist_ok=True)
    task.slice.parent.mkdir(parents=True, exist_ok=True)
    for old in (task.brain, task.record, task.slice):
        old.unlink(missing_ok=True)
    record: dict[str, Any] = dict.fromkeys(COLUMNS) | {"scan": task.name, "settings": task.settings()}
    keep = True
    try:
        brain = _align(task, record)
        _save_slice(brain, task.slice)
        record |= _judge(record)
        if record["status"] != "left out":
            _save_volume(brain, task)
    except (ValueError, FileNotFoundError) as error:
        record |= {"status": "left out", "reason": str(error)}
    except Exception as error:  # such as too little memory: told by name, and tried again in the next run
        keep = False
        record |= {"status": "left out", "reason": f"{type(error).__name__}: {error}"}
    record["cpu_seconds"] = round(time.process_time() - start, 1)
    if keep:
        task.record.write_text(json.dumps(record, indent=2), encoding="utf-8")
    return record


def _align(task: ScanTask, record: dict[str, Any]) -> MetaTensor:
    """The aligned brain; what is measured on the way goes into the record, as far as it gets."""
    load, strip, register = _transforms(task.registration)
    head = load({"image": str(task.scan)})["image"]
    record["axes_in_header"] = _axes(head)
    brain = strip(head)
    record["brain_volume_ml"] = brain.meta["brain_volume"]
    brain = register(brain)
    record["turned"] = brain.meta["registration"]["turned"]
    if record["turned"] and brain.meta["registration"]["similarity"] >= MIN_SIMILARITY:
        head.affine = brain.affine  # deepbet learned from upright heads: strip it again, now that it is put right
        brain = register(strip(head))
        record["brain_volume_ml"] = brain.meta["brain_volume"]
    record |= {"axes": _axes(brain), "similarity": brain.meta["registration"]["similarity"]}
    return cast(MetaTensor, CropForeground(margin=2, allow_smaller=True)(brain))


def _axes(image: MetaTensor) -> str:
    return "".join(map(str, nib.aff2axcodes(np.asarray(image.affine))))


def _judge(record: dict[str, Any]) -> dict[str, str]:
    volume, (low, high) = record["brain_volume_ml"], BRAIN_VOLUMES
    reasons = []
    if not low <= volume <= high:
        reasons.append(
            f"its brain has {volume:.0f} ml, not {low:.0f} to {high:.0f}: is the voxel size in its header right, and "
            "the whole head in it?"
        )
    if record["similarity"] < MIN_SIMILARITY:
        reasons.append(
            f"its similarity with the template is {record['similarity']:.2f}, below {MIN_SIMILARITY}: there is no "
            "brain in it, or it could not be registered; look at its slice."
        )
    if reasons:
        return {"status": "left out", "reason": " ".join(reasons)}
    if record["turned"]:
        return {
            "status": "turned",
            "reason": f"its axes run {record['axes']}, not {record['axes_in_header']} as its header says: put right, "
            "but left and right may be mirrored.",
        }
    return {"status": "ok", "reason": ""}


def _save_slice(brain: MetaTensor, file: Path) -> None:
    scale = ScaleIntensityRangePercentiles(2, 98, 0, 255, clip=True)
    pixels = np.asarray(scale(SLICER(brain))[0]).round().astype(np.uint8)
    Image.fromarray(pixels).save(file)


def _save_volume(brain: MetaTensor, task: ScanTask) -> None:
    image = nib.Nifti1Image(brain[0].numpy(), np.asarray(brain.affine))
    image.set_data_dtype(np.int16)
    unfinished = task.file("_desc-brain_unfinished.nii.gz")
    nib.save(image, unfinished)
    unfinished.replace(task.brain)


def _work(
    function: Callable[[ScanTask], dict[str, Any]], tasks: Sequence[ScanTask], processes: int
) -> Iterator[tuple[ScanTask, dict[str, Any]]]:
    """Records of all tasks as they are done. A process that is killed takes no other scan with it."""
    if processes <= 1:
        yield from ((task, function(task)) for task in tasks)
        return
    alone: list[ScanTask] = []
    threads = max(1, (os.cpu_count() or 1) // processes)
    with _pool(processes, threads) as pool:
        futures = {pool.submit(function, task): task for task in tasks}
        for future in as_completed(futures):
            try:
                yield futures[future], future.result()
            except BrokenProcessPool:
                alone.append(futures[future])
    for task in alone:  # one of them killed its process, and with it the pool: each gets a process of its own
        with _pool(1, threads) as pool:
            try:
                yield task, pool.submit(function, task).result()
            except BrokenProcessPool:
                reason = "its process was killed, perhaps for want of memory."
                yield task, {"scan": task.name, "status": "left out", "reason": reason}


def _pool(processes: int, threads: int) -> ProcessPoolExecutor:
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
    return ProcessPoolExecutor(processes, mp_context=spawn, initializer=torch.set_num_threads, initargs=(threads,))


def summary(table: pd.DataFrame) -> str:
    """How many scans there are of each status."""
    counts = Counter(table["status"])
    return f"{len(table)} scans: " + ", ".join(f"{counts[name]} {name}" for name in ("ok", "turned", "left out"))
