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

"""Comparisons as jobs, by submitit's local executor: what Slurm runs, in processes of this machine."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
from small_study import change, comparison_of, small_bundle

from monai_armed.__main__ import main
from monai_armed.compare.cluster_jobs import ClusterJobs, FoldJob
from monai_armed.compare.runner import Comparison, compare

pytest.importorskip("submitit", reason="jobs of a cluster need submitit: pip install monai_armed[cluster]")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="submitit's jobs are POSIX's")


@pytest.fixture
def bundle(tmp_path):
    """Its models are trained one by one."""
    root = small_bundle(tmp_path)
    change(root, "compare", stacked=False)
    return root


def comparison_by_jobs(bundle: Path, out: Path, **kwargs) -> Comparison:
    return comparison_of(bundle, out, executor=ClusterJobs(out / "jobs", "local", {"timeout_min": 5}), **kwargs)


@pytest.mark.slow
@pytest.mark.parametrize("stacked", [False, True])
def test_local_jobs_give_the_same_bytes(bundle, tmp_path, stacked, capsys):
    change(bundle, "compare", stacked=stacked)
    alone = compare(comparison_of(bundle, tmp_path / "one"))["results"].read_bytes()
    words = ["compare", "--bundle", bundle, "--out", tmp_path / "two", "--folds", 2, "--processes", 2]
    words += ["--executor", "local", "--job", "timeout_min=5"]
    assert main([*map(str, words)]) == 0
    assert (tmp_path / "two" / "results.csv").read_bytes() == alone
    assert "folds: 100%" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_job_costs_its_fold_which_the_next_call_trains(bundle, tmp_path):
    expected = compare(comparison_of(bundle, tmp_path / "one", num_folds=3))["results"].read_bytes()
    weapon = tmp_path / "weapon"
    weapon.write_text("")
    kill = f"$torch.os.kill(torch.os.getpid(), 9) if @seed == 1 and torch.os.path.exists('{weapon}') else 0.001"
    rate = json.loads((bundle / "configs" / "train.json").read_text())["learning_rate"]
    change(bundle, "conventional", learning_rate=kill.replace("0.001", str(rate)))
    comparison = comparison_by_jobs(bundle, tmp_path / "two", num_folds=3)
    results = pd.read_csv(compare(comparison)["results"])
    folds = results[results["metric"] == "accuracy"].groupby("model")["fold"].unique()
    assert sorted(folds["conventional"]) == [0, 2] and sorted(folds["armed"]) == [0, 1, 2]
    ((failed, error),) = comparison.failures.items()
    assert failed.name == "fold_01" and "ended without a result" in error

    weapon.unlink()
    again = comparison_by_jobs(bundle, tmp_path / "two", num_folds=3)
    assert compare(again)["results"].read_bytes() == expected and not again.failures
    assert not (failed / "error.txt").exists()


@pytest.mark.slow
def test_a_job_whose_time_is_up_goes_on(bundle, tmp_path):
    """submitit's signal in the middle of a training: the same job starts again, from the epoch that it was at."""
    change(bundle, "compare", models=["armed"])
    change(bundle, "train", max_epochs=60)
    expected = compare(comparison_of(bundle, tmp_path / "one"))["results"].read_bytes()
    comparison = comparison_by_jobs(bundle, tmp_path / "two")
    sent = []

    def interrupt() -> None:
        for _ in range(600):
            if list((tmp_path / "two").rglob("checkpoint.pt")):
                break
            time.sleep(0.05)
        pids = [int(p) for p in os.listdir("/proc") if p.isdigit() and _is_job(p, tmp_path / "two" / "jobs")]
        for pid in pids:
            os.kill(pid, signal.SIGUSR2)
            sent.append(pid)

    thread = threading.Thread(target=interrupt)
    thread.start()
    files = compare(comparison)
    thread.join()
    (log,) = (tmp_path / "two" / "jobs").glob("*_log.out")
    assert sent and "Requeued job" in log.read_text() + log.with_suffix(".err").read_text()
    assert files["results"].read_bytes() == expected and not comparison.failures


def test_a_job_goes_on_with_what_it_has(bundle, tmp_path, monkeypatch):
    """What submitit puts into the queue again does not train the folds that have a result."""
    comparison = comparison_by_jobs(bundle, tmp_path / "out")
    tasks, _ = comparison.plan()
    trained = []

    def train(study, missing, stacked, threads):
        trained.extend(missing)
        return [(task, "") for task in missing]

    monkeypatch.setattr("monai_armed.compare.cluster_jobs.train_quietly", train)
    tasks[0].save_result(comparison.bundle, [])
    again = FoldJob(comparison.bundle, tasks, False).checkpoint().result()
    assert trained == tasks[1:] and {id(task) for task, _ in again} == {id(task) for task in tasks}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--job", "timeout_min=5"], "--job timeout_min=5 is for jobs of a cluster: give --executor submitit, too"),
        (["--executor", "local", "--job", "hours=5"], "submitit takes no such jobs, {'hours': 5}"),
        (["--executor", "local", "--job", "timeout_min=long"], 'timeout_min": "long'),
        (["--executor", "slurm"], "executor 'slurm' does not work here"),
    ],
)
def test_what_submitit_does_not_take_is_named(words, says, bundle, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")  # no Slurm
    assert main(["compare", "--bundle", str(bundle), "--out", str(tmp_path / "out"), *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and (says in said or "timeout_min" in says)


def _is_job(pid: str, folder: Path) -> bool:
    try:
        words = Path("/proc", pid, "cmdline").read_bytes().decode().split("\0")
    except OSError:
        return False
    return "submitit.core._submit" in words and str(folder) in words
