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

"""Folds in processes of their own, which end with the run, and which a run outlives."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from threading import Thread

import torch

from monai_armed.compare.fold_task import FoldTask
from monai_armed.compare.fold_training import train_and_score
from monai_armed.compare.study_bundle import StudyBundle

__all__ = ["end_with_parent", "train_in_own_process"]

KILLED = "its process was killed, such as by the system for want of memory: run again, with fewer --processes."


def train_in_own_process(bundle: StudyBundle, tasks: Sequence[FoldTask], stacked: bool) -> list[tuple[FoldTask, str]]:
    """
    Train and score folds in a process of their own. If it is killed, it costs the fold that it was at, or the whole
    stack, and the others are trained by a new one.

    Args:
        bundle, tasks, stacked: see :py:func:`monai_armed.compare.fold_training.train_and_score`.

    Returns:
        each fold with an error message, empty if all went well.
    """
    outcome: list[tuple[FoldTask, str]] = []
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
    missing = list(tasks)
    while missing:
        try:
            with ProcessPoolExecutor(1, mp_context=spawn, initializer=end_with_parent) as pool:
                return outcome + pool.submit(_train, bundle, missing, stacked).result()
        except BrokenProcessPool:
            lost = [task for task in missing if task.result(bundle) is None]
            killed = lost if stacked else lost[:1]
            outcome += [(task, "") for task in missing if task not in lost]
            outcome += [(task, KILLED) for task in killed]
            for task in killed:
                task.folder.mkdir(parents=True, exist_ok=True)
                (task.folder / "error.txt").write_text(KILLED, encoding="utf-8")
            missing = lost[len(killed) :]
    return outcome


def end_with_parent() -> None:
    """In a process that another has started: end when the other is gone, also if it was killed and cannot say so."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        parent.join()  # type: ignore[union-attr]
        os._exit(1)

    if parent is not None:
        Thread(target=wait, daemon=True).start()


def _train(bundle: StudyBundle, tasks: Sequence[FoldTask], stacked: bool) -> list[tuple[FoldTask, str]]:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    outcome: list[tuple[FoldTask, str]] = []
    train_and_score(bundle, tasks, stacked, lambda task, error: outcome.append((task, error)))
    return outcome
