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

"""A function for each scan in processes that cost no other scan when they die, and die with their parent."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import torch

__all__ = ["in_processes"]

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_processes(
    function: Callable[[Task], Result], tasks: Sequence[Task], processes: int
) -> Iterator[tuple[Task, Result | None]]:
    """
    Args:
        function: of a module, as processes get it by its name.
        tasks: what it is called with.
        processes: how many at a time; with one, this process does the work.

    Returns:
        each task with its result, as they are done; None where its process was killed, perhaps for want of memory.
    """
    if processes <= 1:
        yield from ((task, function(task)) for task in tasks)
        return
    waiting = list(tasks)
    while waiting:
        done: set[int] = set()
        with _pool(processes) as pool:
            futures = {pool.submit(function, task): k for k, task in enumerate(waiting)}
            for future in as_completed(futures):
                try:
                    result = future.result()
                except BrokenProcessPool:
                    continue
                done.add(futures[future])
                yield waiting[futures[future]], result
        waiting = [task for k, task in enumerate(waiting) if k not in done]
        # a process that dies breaks its pool; it was at one of the first that are not done, as they are begun in turn
        for task in waiting[:processes]:
            yield task, _alone(function, task)
        waiting = waiting[processes:]


def _alone(function: Callable[[Task], Result], task: Task) -> Result | None:
    with _pool(1) as pool:
        try:
            return pool.submit(function, task).result()
        except BrokenProcessPool:
            return None


def _pool(processes: int) -> ProcessPoolExecutor:
    threads = max(1, (os.cpu_count() or 1) // processes)
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
    return ProcessPoolExecutor(processes, mp_context=spawn, initializer=_start, initargs=(threads,))


def _start(threads: int) -> None:
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that is killed cannot end its processes, and they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
