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

"""The fault table: bad, odd and unusual inputs for every bundle and command, and what becomes of them.

Run ``python benchmarks/fault_campaign.py --jobs 2``. It prints a row for each input (verdict, exit code, last line) and
the counts, and ends with 1 unless every verdict is right: a *sentence* that says what is wrong, or *accepted* where the
results are as they should be. Wrong are a *traceback*, what is *silently wrong*, a *misleading* sentence (or a refusal
of what is good), and what *hangs*.

All data are drawn at random (``campaign/study_data.py``), and the models trained on them for two epochs.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from campaign import (
    ad_mri_cases,
    ad_mri_model_cases,
    cell_cases,
    compare_cases,
    mci_cases,
    preprocess_cases,
    spirals_cases,
)
from campaign.case import RIGHT, VERDICTS, Case, Outcome, Place
from campaign.commands import SHORT, bundle_command
from campaign.execution import run_command
from campaign.study_data import DATA

GROUPS = (ad_mri_cases, ad_mri_model_cases, cell_cases, mci_cases, spirals_cases, compare_cases, preprocess_cases)
CASES: list[Case] = [case for group in GROUPS for case in group.CASES]
LIMIT = 300.0  # seconds of a command


def prepare(shared: Path, bundle: str) -> None:
    """Make the data of a bundle, train its models on them, and evaluate its own."""
    if (shared / bundle / "whole").exists():
        return
    shutil.rmtree(shared / bundle, ignore_errors=True)
    (shared / bundle).mkdir(parents=True)
    data = DATA[bundle](shared / bundle / "data")
    models = {case.model for case in CASES if case.bundle == bundle} | {"armed", "conventional"}
    for model in sorted(models):
        out = shared / bundle / ("run" if model == "armed" else f"run_{model}")
        options = {"dataset_dir": data, "output_dir": out, **SHORT[bundle]}
        code, text = run_command(bundle_command(bundle, "train", options, model), shared / bundle, {}, LIMIT)
        if code:
            raise RuntimeError(f"the training of {bundle} {model} with good data failed:\n{text[-2000:]}")
    options = {"dataset_dir": data, "ckpt_path": shared / bundle / "run" / "model.pt"}
    command = bundle_command(bundle, "evaluate", {**options, "output_dir": shared / bundle / "evaluated"})
    code, text = run_command(command, shared / bundle, {}, LIMIT)
    if code:
        raise RuntimeError(f"the evaluation of {bundle} with good data failed:\n{text[-2000:]}")
    (shared / bundle / "whole").touch()


def judge(case: Case, shared: Path, folder: Path) -> dict[str, object]:
    """Run a case; a row of the table."""
    # a number, not the name: no word of it may be in a path that a sentence quotes
    place = Place(folder / str(CASES.index(case)), case.bundle, shared)
    shutil.rmtree(place.folder, ignore_errors=True)
    place.folder.mkdir(parents=True)
    if case.edit is not None:
        try:
            case.edit(place)
        except Exception as error:
            raise RuntimeError(f"the input of {case.name} cannot be made: mend the campaign.") from error
    outcome = Outcome(*run_command(case.command(place), place.folder, {}, LIMIT), place)
    verdict, why = case.wanted.verdict(outcome)
    if verdict in RIGHT:
        shutil.rmtree(place.folder)
    return {"case": case, "verdict": verdict, "why": why, "code": outcome.code, "line": outcome.last_line}


def rows(cases: Sequence[Case], shared: Path, folder: Path, jobs: int) -> Iterator[dict[str, object]]:
    """Rows of the table in the order of the cases, so many at a time."""
    for bundle in dict.fromkeys(case.bundle for case in cases):
        prepare(shared, bundle)
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(lambda case: judge(case, shared, folder), cases)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 1 if a verdict is not right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="commands at a time")
    parser.add_argument("--only", default="", metavar="PATTERN", help="cases whose name matches, such as 'mci/train'")
    parser.add_argument("--folder", type=Path, help="where data, models and what went wrong are kept")
    parser.add_argument("--wrong", action="store_true", help="show only the rows that are not right")
    arguments = parser.parse_args(argv)
    os.environ.update(CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", PYTHONUNBUFFERED="1")
    cases = [case for case in CASES if re.search(arguments.only, case.name)]
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).resolve()
        for row in rows(cases, folder / "shared", folder / "cases", arguments.jobs):
            counts[str(row["verdict"])] += 1
            case = row["case"]
            assert isinstance(case, Case)
            if not (arguments.wrong and row["verdict"] in RIGHT):
                why = f" [{row['why']}]" if row["why"] else ""
                print(
                    f"| {case.name} | {case.what} | {row['verdict']}{why} | {row['code']} | {row['line']} |", flush=True
                )
    print(f"\n{len(cases)} inputs: " + ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS))
    return int(any(counts[verdict] for verdict in VERDICTS if verdict not in RIGHT))


if __name__ == "__main__":
    sys.exit(main())
