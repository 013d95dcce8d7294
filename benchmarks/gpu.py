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

"""All that has to be tried on a GPU, by one command in under 9 minutes: ``python benchmarks/gpu.py --out runs/gpu``.

It runs every test of CUDA and mixed precision, trains each bundle on the GPU with mixed precision and resumes it,
audits and erases an exported network there and compares with the CPU, and
measures training steps (conventional, ARMED in one pass, alternating) on the paper's CNN and a 3-D DenseNet121, in
float32 and bf16, with channels_last and compiled, beside the least time that the work can take, the wait for data, and
the operations that have no deterministic form. ``gpu.json`` and ``gpu.md`` have the results; the latter goes into
``benchmarks/README.md``. What fails is a row with its error, and the exit code is then 1.

``--small`` does the same on the CPU with small images, and tells nothing about speed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import monai
import torch
from campaign.execution import start_server
from gpu_parts import audits, bundle_runs, steps

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 520.0  # for everything on a GPU
TESTS = "cuda or gpu or autocast or mixed_precision or bfloat16"  # words in their names


def run_tests(small: bool, limit: float) -> dict[str, Any]:
    """Run the suite's tests of CUDA and mixed precision; what pytest counts, and which failed."""
    place = "tests/engines/test_engines.py" if small else "tests"
    command = [sys.executable, "-m", "pytest", "-q", "-k", TESTS, "-p", "no:cacheprovider", place]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"note": f"they took more than {limit:.0f} s"}
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)\b", done.stdout)}
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.M)
    # 5: no test has such a name
    return {**counts, "failures": failed, "note": "ok" if done.returncode == 0 else f"exit code {done.returncode}"}


def device_report(device: torch.device) -> dict[str, str]:
    """What it is measured on."""
    name = torch.cuda.get_device_name(device) if torch.cuda.is_available() else "CPU"
    return {"device": name, "torch": torch.__version__, "cuda": str(torch.version.cuda), "monai": monai.__version__}


def everything(small: bool, folder: Path) -> dict[str, Any]:
    """Run all stages within the time."""
    start = time.monotonic()
    limit = math.inf if small else SECONDS

    def left() -> float:
        return limit - (time.monotonic() - start)

    device = torch.device("cuda" if torch.cuda.is_available() and not small else "cpu")
    found: dict[str, Any] = {**device_report(device), "small": small, "tests": run_tests(small, 600 if small else 150)}
    start_server()
    found["bundles"] = list(bundle_runs.rows(folder, device, left))
    found["audits"] = list(audits.rows(folder / "audits", device, small, left))
    found["data_wait"] = bundle_runs.data_waits(folder, device, small)
    found["nondeterministic"] = steps.nondeterministic(device, small)
    found["steps"] = list(steps.rows(small, device, left))
    found["seconds"] = time.monotonic() - start
    return found


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return [*lines, *("| " + " | ".join(map(_cell, row)) + " |" for row in rows), ""]


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}" if value < 10 else f"{value:.0f}"
    return "" if value is None else str(value)


def markdown(found: dict[str, Any]) -> str:
    """The results as tables for benchmarks/README.md."""
    lines = [f"{found['device']}, PyTorch {found['torch']}, CUDA {found['cuda']}, MONAI {found['monai']}.", ""]
    tests = {name: value for name, value in found["tests"].items() if name != "failures"}
    lines += ["Tests of CUDA and mixed precision: " + ", ".join(f"{k} {v}" for k, v in tests.items()) + ".", ""]
    columns = ["network", "option", "training", "ms", "ratio", "images_per_s", "floor_ms", "times_floor", "note"]
    head = ["network", "option", "training", "ms a step", "ratio", "images/s", "floor, ms", "times the floor", ""]
    lines += _table(head, ([row.get(name) for name in columns] for row in found["steps"]))
    columns = ["bundle", "train_s", "resume_s", "note"]
    lines += _table(
        ["bundle", "2 epochs, s", "2 more, resumed, s", ""], ([row.get(c) for c in columns] for row in found["bundles"])
    )
    columns = ["command", "device", "images", "seconds", "leak", "note"]
    lines += _table(columns, ([row.get(name) for name in columns] for row in found["audits"]))
    waits = ", ".join(f"{name} {share:.0%}" for name, share in found["data_wait"].items())
    lines += [f"Share of a training iteration that waits for data: {waits}.", ""]
    told = sorted({text for texts in found["nondeterministic"].values() for text in texts})
    lines += ["Operations without a deterministic form: " + ("; ".join(told) if told else "none") + ".", ""]
    return "\n".join(lines)


def failed(found: dict[str, Any]) -> list[str]:
    """What did not go as it should, in words."""
    wrong = [] if found["tests"]["note"] == "ok" else [f"tests: {found['tests']}"]
    wrong += [f"{row['bundle']}: {row['note']}" for row in found["bundles"] if row["note"] != "ok"]
    wrong += [f"{row['command']} on {row['device']}: {row['note']}" for row in found["audits"] if row["note"] != "ok"]
    return wrong + [f"{row['network']}, {row['option']}: {row['note']}" for row in found["steps"] if "note" in row]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 1 if anything failed or was left out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.json and gpu.md")
    parser.add_argument("--small", action="store_true", help="on the CPU, with small images")
    arguments = parser.parse_args(argv)
    if not arguments.small and not torch.cuda.is_available():
        parser.error("there is no CUDA device: give --small to try the benchmark itself on the CPU")
    if arguments.small:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with tempfile.TemporaryDirectory() as folder:
        found = everything(arguments.small, Path(folder))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "gpu.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    (arguments.out / "gpu.md").write_text(markdown(found), encoding="utf-8")
    print(markdown(found))
    for text in failed(found):
        print(f"failed: {text}", file=sys.stderr)
    return int(bool(failed(found)))


if __name__ == "__main__":
    sys.exit(main())
