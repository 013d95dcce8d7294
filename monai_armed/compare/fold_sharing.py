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

"""Groups of folds shared among processes or cluster jobs, which the run outlives."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from monai_armed.compare.fold_task import FoldTask
from monai_armed.compare.study_bundle import StudyBundle

__all__ = ["FoldExecutor", "share_folds"]

Outcome = list[tuple[FoldTask, str]]


class FoldWork(Protocol):
    """Folds that are being trained elsewhere: a future, or a cluster's job."""

    def done(self) -> bool:
        """Whether it has ended, in whatever way."""

    def result(self) -> Outcome:
        """Each fold with an error message, empty if all went well."""


class FoldExecutor(Protocol):
    """Where folds are trained.

    Args:
        killed: what a work's ``result`` raises if it was killed.
        poll: seconds between two looks at what has been done.
    """

    killed: type[Exception]
    poll: float

    def start(self, bundle: StudyBundle, tasks: Sequence[FoldTask], stacked: bool) -> FoldWork:
        """Train and score folds, see :py:func:`monai_armed.compare.fold_training.train_and_score`, elsewhere."""

    def cancel(self, work: Any) -> None:
        """End it before its time."""

    def epitaph(self, work: Any) -> str:
        """What is said of the fold at which it was killed."""


def share_folds(
    bundle: StudyBundle,
    groups: Sequence[Sequence[FoldTask]],
    stacked: bool,
    executor: FoldExecutor,
    at_once: int,
    done: Callable[[FoldTask, str], None],
    progress: Callable[[int], None],
) -> None:
    """
    Train and score groups of folds elsewhere. If a group is killed, it costs the fold that it was at, or the whole
    stack, and the rest goes on in a new one. If this function is interrupted, all of them are cancelled.

    Args:
        bundle: the bundle.
        groups: of folds; each is trained in one go.
        stacked: whether to train a group as one stack.
        executor: where.
        at_once: how many groups at a time.
        done: called for each fold with an error message, empty if all went well.
        progress: called with the number of folds that their folders show to be done, now and then.
    """
    before = {task.folder: _mark(task) for group in groups for task in group}
    waiting, running, finished = deque(groups), list[tuple[Any, Sequence[FoldTask]]](), 0
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append((executor.start(bundle, waiting[0], stacked), waiting.popleft()))
            for work, tasks in [pair for pair in running if pair[0].done()]:
                running.remove((work, tasks))
                rest: list[FoldTask] = []
                try:
                    outcome = work.result()
                except executor.killed:
                    outcome, rest = _lost(bundle, tasks, stacked, before, executor.epitaph(work))
                for task, error in outcome:
                    done(task, error)
                finished += len(outcome)
                waiting.extendleft([rest] if rest else [])
            progress(finished + sum(_mark(task) != before[task.folder] for _, tasks in running for task in tasks))
            time.sleep(executor.poll if running else 0)
    finally:
        for work, _ in running:
            executor.cancel(work)


def _lost(
    bundle: StudyBundle, tasks: Sequence[FoldTask], stacked: bool, before: dict[Any, Any], epitaph: str
) -> tuple[Outcome, list[FoldTask]]:
    """What is known of folds whose work was killed, and those that have yet to be trained."""
    outcome, lost = [], []
    for task in tasks:
        error = task.folder / "error.txt"
        if task.result(bundle) is not None:
            outcome.append((task, ""))
        elif _mark(task) != before[task.folder] and error.is_file():
            outcome.append((task, (error.read_text(encoding="utf-8").strip().splitlines() or [""])[-1]))
        else:
            lost.append(task)
    killed = lost if stacked else lost[:1]
    for task in killed:
        task.folder.mkdir(parents=True, exist_ok=True)
        (task.folder / "error.txt").write_text(epitaph, encoding="utf-8")
    return outcome + [(task, epitaph) for task in killed], lost[len(killed) :]


def _mark(task: FoldTask) -> tuple[int, ...]:
    """Changes when a fold gets a result or an error."""
    files = [task.folder / name for name in ("result.json", "error.txt")]
    return tuple(file.stat().st_mtime_ns if file.is_file() else 0 for file in files)
