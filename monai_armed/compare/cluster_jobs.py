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

"""Folds as jobs of a cluster, by submitit: Slurm's, or this machine's through the same code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.utils import optional_import

from monai_armed.compare.fold_processes import train_quietly
from monai_armed.compare.fold_sharing import Outcome
from monai_armed.compare.fold_task import FoldTask
from monai_armed.compare.study_bundle import StudyBundle

submitit, has_submitit = optional_import("submitit")

__all__ = ["ClusterJobs", "FoldJob"]

DEFAULTS = {"name": "monai_armed", "timeout_min": 24 * 60}  # submitit's own are 2 and 5 minutes


class ClusterJobs:
    """
    Trains each group of folds as a job: a :py:class:`monai_armed.compare.fold_sharing.FoldExecutor`.

    Args:
        folder: for what submitit keeps of the jobs, their logs among it; seen by all nodes.
        cluster: ``"slurm"``, ``"local"`` for processes of this machine, or ``"submitit"``: Slurm where there is one.
        parameters: of ``submitit.AutoExecutor.update_parameters``, such as
            ``{"timeout_min": 240, "mem_gb": 16, "gpus_per_node": 1, "slurm_partition": "gpu"}``.

    Raises:
        ImportError: when submitit is not installed.
        ValueError: when there is no such cluster here, or a parameter is none of submitit's.
    """

    poll = 1.0

    def __init__(self, folder: Path, cluster: str = "submitit", parameters: Mapping[str, Any] | None = None) -> None:
        if not has_submitit:
            raise ImportError('jobs of a cluster need the package submitit: pip install "monai_armed[cluster]".')
        self.killed = submitit.core.utils.UncompletedJobError
        try:
            name = None if cluster == "submitit" else cluster
            self.executor = submitit.AutoExecutor(folder, cluster=name)
        except RuntimeError as error:
            raise ValueError(f"executor '{cluster}' does not work here: {error}; name another.") from None
        try:
            self.executor.update_parameters(**{**DEFAULTS, **(parameters or {})})
        except (AssertionError, NameError, TypeError, ValueError) as error:
            says = str(error).splitlines()[0].rstrip(".")
            raise ValueError(f"submitit takes no such jobs, {dict(parameters or {})}: {says}.") from None
        self.threads = int((parameters or {}).get("cpus_per_task", 1))

    def start(self, bundle: StudyBundle, tasks: Sequence[FoldTask], stacked: bool) -> Any:
        """A job for a group of folds; see :py:class:`monai_armed.compare.fold_sharing.FoldExecutor`."""
        return self.executor.submit(FoldJob(bundle, list(tasks), stacked, self.threads))

    def cancel(self, work: Any) -> None:
        """End a job, and do not wait for it."""
        work.cancel(check=False)

    def epitaph(self, work: Any) -> str:
        """What is said of the fold at which a job was killed."""
        return (
            f"its job {work.job_id} ended without a result, such as for want of memory or time ({work.paths.stderr} "
            "may say more): run again, with other --job values."
        )


@dataclass(frozen=True)
class FoldJob:
    """
    What a job does. If its time is up, or it has to make room, submitit puts it into the queue again: then the folds
    that have a result stay as they are, and the one that it was at goes on from its last epoch.

    Args:
        bundle, tasks, stacked: see :py:func:`monai_armed.compare.fold_training.train_and_score`.
        threads: of PyTorch.
    """

    bundle: StudyBundle
    tasks: Sequence[FoldTask]
    stacked: bool
    threads: int = 1

    def __call__(self) -> Outcome:
        """Each fold with an error message, empty if all went well."""
        missing = [task for task in self.tasks if task.result(self.bundle) is None]
        known = [(task, "") for task in self.tasks if task not in missing]
        return known + train_quietly(self.bundle, missing, self.stacked, self.threads)

    def checkpoint(self) -> Any:
        """What submitit puts into the queue: the same again, since all that is done lies in the folds' folders."""
        return submitit.helpers.DelayedSubmission(self)
