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

"""The comparison runner: all models of a bundle on the same folds, with statistics and a report."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split
from tqdm import tqdm

from monai_armed.compare.fold_processes import OwnProcesses
from monai_armed.compare.fold_search import check_search, choose_candidate, inner_tasks, write_search
from monai_armed.compare.fold_sharing import FoldExecutor, share_folds
from monai_armed.compare.fold_task import FoldTask
from monai_armed.compare.fold_tracking import FoldTracker
from monai_armed.compare.fold_training import train_and_score
from monai_armed.compare.outcome import ceilings, fold_results, one_test_set, report_results, write_pages
from monai_armed.compare.samples_file import write_samples
from monai_armed.compare.study_bundle import Samples, StudyBundle
from monai_armed.data.folds import grouped_folds, monte_carlo_folds, stratified_folds

__all__ = ["Comparison", "compare"]

VALIDATION_SHARE = 0.1  # of a fold's training samples, for choosing the epoch
STACK_SIZE = 100  # networks trained as one stack at most: what an interruption can cost


@dataclass(frozen=True)
class Comparison:
    """
    What is compared, and how.

    Args:
        bundle: the bundle, with its variant and overrides.
        models: names of the models.
        out: folder for everything.
        num_folds: number of folds, or of random splits.
        split: ``"stratified"`` (by class x cluster), ``"grouped"`` or ``"monte_carlo"``.
        seed: of the folds, and of the starts: fold k starts from seed + k.
        inner_folds: folds of the nested cross-validation that chooses hyperparameters; 0: as configured.
        repeat: config id whose value is k for fold k, such as a seed of the data: fold k is then one of other data.
        processes: number of processes, or of jobs at a time, among which the folds are shared.
        executor: where folds are trained.
        tracker: where each fold is written as a run.

    Attributes:
        failures: what went wrong, by the fold's folder.
        tasks: the folds that :py:func:`compare` has run, with the hyperparameters that a search chose.
        samples: those of each of the tasks' files.
    """

    bundle: StudyBundle
    models: Sequence[str]
    out: Path
    num_folds: int = 10
    split: str = "stratified"
    seed: int = 0
    inner_folds: int = 0
    repeat: str = ""
    processes: int = 1
    executor: FoldExecutor = field(default_factory=OwnProcesses)
    tracker: FoldTracker | None = None
    failures: dict[Path, str] = field(default_factory=dict)
    tasks: list[FoldTask] = field(default_factory=list)
    samples: dict[Path, Samples] = field(default_factory=dict)

    def folds(self, samples: Samples, pool: np.ndarray, num_folds: int) -> list[dict[str, np.ndarray]]:
        """
        Parts of each fold: indices of the training, validation and test samples, taken from a pool of them.

        Raises:
            ValueError: when the samples cannot be split like that.
        """
        label = samples.label[pool]
        label = np.where(label < 0, np.bincount(label[label >= 0]).argmax(), label)  # not known: as most are
        cluster = np.unique(samples.cluster[pool], return_inverse=True)[1]
        stratum = 2 * cluster + label
        parts = []
        if self.split == "stratified":
            if samples.group is not None and len(np.unique(samples.group[pool])) < len(pool):
                key = self.bundle.options["group_key"]
                raise ValueError(
                    f"a stratified split would put samples of one {key} into training and test: give --split grouped "
                    "or monte_carlo."
                )
            for k, (rest, test) in enumerate(stratified_folds(label, cluster, num_folds, self.seed)):
                cells = np.unique(stratum[rest], return_counts=True)[1]
                fits = cells.min() > 1 and VALIDATION_SHARE * len(rest) >= len(cells)
                strata = (stratum if fits else label)[rest]  # small data: by class alone
                train, val = train_test_split(
                    rest, test_size=VALIDATION_SHARE, stratify=strata, random_state=self.seed + k
                )
                parts.append({"train": np.sort(train), "val": np.sort(val), "test": test})
        else:
            if samples.group is None:
                key = self.bundle.options["group_key"]
                raise ValueError(f"samples have no '{key}' that a {self.split} split keeps together: use stratified.")
            group = samples.group[pool]
            splitter = grouped_folds if self.split == "grouped" else monte_carlo_folds
            for k, (rest, test) in enumerate(splitter(label, group, num_folds, seed=self.seed)):
                ((train, val),) = monte_carlo_folds(label[rest], group[rest], 1, VALIDATION_SHARE, seed=self.seed + k)
                parts.append({"train": rest[train], "val": rest[val], "test": test})
        return [{name: pool[index] for name, index in part.items()} for part in parts]

    @property
    def repetitions(self) -> list[dict[str, int]]:
        """Overrides of each repetition: of each fold, where folds are of other data."""
        return [{self.repeat: k} for k in range(self.num_folds)] if self.repeat else [{}]

    @property
    def test_ratio(self) -> float:
        """Size of a test part, as a share of all that is not in it."""
        return 0.25 if self.split == "monte_carlo" else 1 / max(1, self.num_folds - 1)

    def plan(self) -> tuple[list[FoldTask], dict[Path, Samples]]:
        """All folds of all models in all settings, and the samples of each, written to their files."""
        tasks, known = [], {}
        by_leak = bool(self.inner_folds) and self.bundle.options["choose_by"] == "leak"
        for setting in self.bundle.options["settings"]:
            folder = self.out / (",".join(f"{name}={value}" for name, value in setting.items()) or "all")
            parts: list[tuple[Path, dict[str, Any], dict[str, np.ndarray]]] = []
            for k, repetition in enumerate(self.repetitions):
                samples = self.bundle.samples({**setting, **repetition})
                path = write_samples(samples.partitions, folder / f"samples_{k}.json")
                known[path] = samples
                own = self.folds(samples, np.arange(len(samples.label)), self.num_folds)
                parts += [(path, repetition, part) for part in (own[k : k + 1] if self.repeat else own)]
            for model, (k, (path, repetition, part)) in itertools.product(self.models, enumerate(parts)):
                name = folder / model / f"fold_{k:02d}"
                tasks.append(FoldTask(name, model, setting, path, part, self.seed + k, repetition, by_leak))
        return tasks, known

    def run(self, tasks: Sequence[FoldTask], name: str) -> None:
        """Train and score the folds that have no result yet."""
        missing = [task for task in tasks if task.result(self.bundle) is None]
        stacked = self.bundle.options["stacked"]
        here = isinstance(self.executor, OwnProcesses)
        groups = self._groups(missing, stacked or (here and self.processes == 1))
        in_process = here and (self.processes == 1 or len(groups) < 2)
        start = len(tasks) - len(missing)
        if self.tracker is not None:
            for task in tasks:
                self.tracker.write(self.bundle, task)
        bar = tqdm(total=len(tasks), initial=start, desc=name, unit="fold")

        def note(task: FoldTask, error: str) -> None:
            if error:
                self.failures[task.folder] = error
            if self.tracker is not None:
                self.tracker.write(self.bundle, task, error)
            if in_process:
                bar.update()

        with bar:
            if not in_process:
                at_once = self.processes
                share_folds(
                    self.bundle, groups, stacked, self.executor, at_once, note, lambda n: bar.update(start + n - bar.n)
                )
                return
            for group in groups:
                label = f"{len(group)} folds of {group[0].model}"
                bar.set_postfix_str(label)

                def epoch(done: int, of: int, label: str = label) -> None:
                    bar.set_postfix_str(f"{label}, epoch {done} of {of}")

                train_and_score(self.bundle, group, stacked, note, epoch)

    def _groups(self, tasks: Sequence[FoldTask], by_model: bool) -> list[list[FoldTask]]:
        """What is trained in one go: stacks of one model, or else an equal share for each process."""
        if not by_model:
            return [list(tasks[i :: self.processes]) for i in range(min(self.processes, len(tasks)))]
        groups = []
        for _, members in itertools.groupby(sorted(tasks, key=lambda t: t.model), key=lambda t: t.model):
            whole = list(members)
            groups += [whole[i : i + STACK_SIZE] for i in range(0, len(whole), STACK_SIZE)]
        return groups

    def search(self, tasks: Sequence[FoldTask], samples: Mapping[Path, Samples]) -> list[FoldTask]:
        """The tasks with the hyperparameters that nested cross-validation within their training samples chose."""
        inner = []
        for task in tasks:
            pool = np.sort(np.concatenate([task.parts["train"], task.parts["val"]]))
            has_candidates = bool(self.bundle.search(task.model))
            parts = self.folds(samples[task.samples], pool, self.inner_folds) if has_candidates else []
            inner.append(inner_tasks(self.bundle, task, parts))
        self.run([task for candidates in inner for group in candidates for task in group], "search")
        return [choose_candidate(self.bundle, task, candidates) for task, candidates in zip(tasks, inner)]


def check_writable(out: Path) -> None:
    """
    Raises:
        ValueError: when nothing can be written to the folder.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".probe"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as e:
        raise ValueError(f"the folder '{out}' cannot be written to ({e.strerror}): name another with --out.") from e


def check_study(comparison: Comparison, setting: str, name: str) -> None:
    """
    Raises:
        ValueError: when the comparison's bundle has no such setting, and so is of another study than ``name``.
    """
    if not all(setting in chosen for chosen in comparison.bundle.options["settings"]):
        raise ValueError(
            f"{comparison.bundle.root} is of another study: this command needs {name}, whose compare.json has the "
            f"setting '{setting}'; compare any bundle with `python -m monai_armed compare`."
        )


def compare(comparison: Comparison) -> dict[str, Path]:
    """
    Run a comparison: plan, search if asked for, train, score, report. What is there already is not done again.

    Returns:
        the report's files by name; also ``"delong"``, the AUROC of each test set with DeLong's interval.

    Raises:
        ValueError: before anything is trained, when something about the input is wrong; or when every fold failed.
    """
    check_writable(comparison.out)
    tasks, samples = comparison.plan()
    if comparison.inner_folds:
        check_search(comparison.bundle, comparison.models)
        tasks = comparison.search(tasks, samples)
    comparison.tasks[:] = tasks
    comparison.samples.update(samples)
    comparison.run(tasks, "folds")
    pages = write_pages(comparison.bundle, tasks)
    results = fold_results(tasks, comparison.bundle)
    if results.empty:
        raise ValueError(f"every fold failed, the first with: {next(iter(comparison.failures.values()))}")
    notes = [f"Split: {comparison.split}, {comparison.num_folds} folds, seed {comparison.seed}."]
    if comparison.repeat:
        notes.append(f"Fold k is of other data, those with {comparison.repeat} = k.")
    if comparison.inner_folds:
        notes.append(
            f"Hyperparameters chosen in {comparison.inner_folds} inner folds within each training part, below."
        )
    if comparison.bundle.overrides:
        own = ", ".join(f"{name}={value}" for name, value in comparison.bundle.overrides.items())
        notes.append(f"Not as the bundle has it: {own}.")
    if comparison.num_folds == 1:
        notes.append(one_test_set(comparison.bundle, results))
    if comparison.failures:
        notes.append(f"{len(comparison.failures)} folds failed and are left out; each folder's error.txt says why.")
    if pages:
        notes.append("Each model's folder has a page, report.html: whether its predictions tell the cluster.")
    ceiling = ceilings(comparison.bundle, comparison.repetitions)
    ratio = None if comparison.repeat else comparison.test_ratio
    files = report_results(comparison.bundle, results, comparison.out, ceiling, notes, ratio)
    return files | (write_search(comparison.bundle, tasks, files["report"]) if comparison.inner_folds else {})


def parse_overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """
    ``id=value`` pairs, values as JSON where they are, else as text.

    Raises:
        ValueError: when a pair has no id or no ``=``.
    """
    overrides = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign or not name.strip():
            raise ValueError(f"an override is written id=value, got '{pair}'.")
        try:
            overrides[name] = json.loads(text)
        except json.JSONDecodeError:
            overrides[name] = text
    return overrides
