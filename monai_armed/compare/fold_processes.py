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

"""Folds in processes of their own, which end with the run."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from threading import Thread
from typing import Any

import torch

from monai_armed.compare.fold_sharing import Outcome
from monai_armed.compare.fold_task import FoldTask
from monai_armed.compare.fold_training import train_and_score
from monai_armed.compare.study_bundle import StudyBundle

__all__ = ["OwnProcesses", "end_with_parent", "train_quietly"]


class OwnProcesses:
    """A :py:class:`monai_armed.compare.fold_sharing.FoldExecutor`: a process of its own for each group of folds."""

    killed: type[Exception] = BrokenProcessPool
    poll = 0.2

    def start(self, bundle: StudyBundle, tasks: Sequence[FoldTask], stacked: bool) -> Future[Outcome]:
        """A process of its own for a group; see :py:class:`monai_armed.compare.fold_sharing.FoldExecutor`."""
        spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
        pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=end_with_parent)
        work = pool.submit(train_quietly, bundle, tasks, stacked)
        pool.shutdown(wait=False)  # when it is done
        return work

    def cancel(self, work: Any) -> None:
        """Nothing: a process ends with the run."""

    def epitaph(self, work: Any) -> str:
        """What is said of the fold at which a process was killed."""
        return "its process was killed, such as by the system for want of memory: run again, with fewer --processes."


def end_with_parent() -> None:
    """In a process that another has started: end when the other is gone, also if it was killed and cannot say so."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        parent.join()  # type: ignore[union-attr]
        os._exit(1)

    if parent is not None:
        Thread(target=wait, daemon=True).start()


def train_quietly(bundle: StudyBundle, tasks: Sequence[FoldTask], stacked: bool, threads: int = 1) -> Outcome:
    """
    Train and score folds with a number of threads, without warnings.

    Args:
        bundle, tasks, stacked: see :py:func:`monai_armed.compare.fold_training.train_and_score`.
        threads: of PyTorch.

    Returns:
        each fold with an error message, empty if all went well.
    """
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    outcome: Outcome = []
    train_and_score(bundle, tasks, stacked, lambda task, error: outcome.append((task, error)))
    return outcome
