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

"""Trainings that are killed at random moments and resumed: the same weights bit for bit as without, or refused by name.

Run ``python benchmarks/kill_campaign.py --jobs 2``: 20 kills of each bundle. Each is one of three situations, in turn:

- *alone*: killed, perhaps again, and resumed with the same settings;
- *older*: the same in the folder of an older, finished run with another seed and another weight of the adversary;
- *changed*: killed, and resumed with that other seed and weight.

Right is *same*, the weights of a training with the resumed settings that nobody killed, or *refused* with a sentence,
but not in *alone*. It prints a row for each kill and ends with 1 if one is wrong. All data are drawn at random
(``campaign/study_data.py``).
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from campaign.case import CRASHES, SENTENCE
from campaign.commands import BUNDLES, SHORT, bundle_command
from campaign.execution import run_command, start_server
from campaign.study_data import DATA

SITUATIONS = ("alone", "older", "changed")
EPOCHS = "5"
CHANGED = {"seed": "1", "lambda_adversary": "0.7"}
LIMIT = 600.0  # seconds of a training that nobody kills


@dataclass(frozen=True)
class Trained:
    """A training that nobody killed: its data, its folder, and its seconds before and after the first checkpoint."""

    data: Path
    folder: Path
    before: float
    after: float

    def same(self, other: Path) -> bool:
        """Whether another folder has the same weights, bit for bit."""
        states = [torch.load(folder / "model.pt", weights_only=True) for folder in (self.folder, other)]
        return states[0].keys() == states[1].keys() and all(
            torch.equal(states[0][name].reshape(-1).view(torch.uint8), states[1][name].reshape(-1).view(torch.uint8))
            for name in states[0]
        )


class Checkpoints:
    """Tells how long ago a training has left its first checkpoint in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.start, self.first = folder, time.time(), 0.0

    def elapsed(self) -> float:
        """Seconds since this object was made."""
        return time.time() - self.start

    def seconds(self) -> float:
        """Seconds since the first checkpoint that is newer than this object; -1 while there is none."""
        if not self.first and any(path.stat().st_mtime > self.start for path in self.folder.rglob("checkpoint.pt")):
            self.first = time.time()
        return time.time() - self.first if self.first else -1.0


def later_than(clock: Callable[[], float], wait: float) -> Callable[[], bool]:
    """Whether a clock shows more than so many seconds, to be asked again and again."""
    return lambda: clock() > wait


def train(
    bundle: str, data: Path, out: Path, changes: Mapping[str, str], kill: Callable[[], bool] = lambda: False
) -> tuple[int | None, str]:
    """Exit code (None: killed, with all its children) and text of a training."""
    options = {"dataset_dir": data, "output_dir": out, **SHORT[bundle], "max_epochs": EPOCHS, **changes}
    folder = out.with_name(out.name + "_printed")
    folder.mkdir(parents=True, exist_ok=True)
    return run_command(bundle_command(bundle, "train", options), folder, {}, LIMIT, kill)


def unkilled(bundle: str, data: Path, folder: Path, changes: Mapping[str, str]) -> Trained:
    """The training to compare with."""
    out = folder / ("changed" if changes else "usual")
    watch = Checkpoints(out)
    code, text = train(bundle, data, out, changes, later_than(watch.seconds, LIMIT))
    if code:
        raise RuntimeError(f"the training of {bundle} that is not killed failed:\n{text[-2000:]}")
    return Trained(data, out, watch.first - watch.start, time.time() - watch.first)


def one_kill(
    bundle: str, folder: Path, number: int, situation: str, seed: int, usual: Trained, changed: Trained
) -> dict[str, object]:
    """Kill and resume a training; a row of the table."""
    rng = np.random.default_rng([seed, number, *bundle.encode()])
    out = folder / f"kill_{number}"
    if situation == "older":
        shutil.copytree(changed.folder, out)
    moments = []
    for again in range(int(rng.integers(1, 3))):
        watch = Checkpoints(out)
        early = rng.random() < 0.25  # before there is anything to resume
        wait = float(rng.uniform(0, usual.before if early else usual.after))
        moments.append(f"{wait:.1f} s" + ("" if early else " of training"))
        kill = later_than(watch.elapsed if early else watch.seconds, wait)
        train(bundle, usual.data, out, {"resume": "true"} if again else {}, kill)
    right = changed if situation == "changed" else usual
    changes = {"resume": "true", **(CHANGED if situation == "changed" else {})}
    verdict, note = _verdict(*train(bundle, usual.data, out, changes), situation, right, out)
    if verdict in ("same", "refused"):
        shutil.rmtree(out)
    told = " and ".join(moments)
    return {
        "bundle": bundle,
        "number": number,
        "situation": situation,
        "killed": told,
        "verdict": verdict,
        "note": note,
    }


def _verdict(code: int | None, text: str, situation: str, right: Trained, out: Path) -> tuple[str, str]:
    if code is None:
        return "hangs", ""
    if code:
        sentences = SENTENCE.findall(text)
        if any(crash in text for crash in CRASHES) or not sentences:
            return "traceback", text.strip().splitlines()[-1] if text.strip() else ""
        return ("refused wrongly" if situation == "alone" else "refused"), sentences[0]
    if not (out / "model.pt").is_file():
        return "no weights", ""
    return ("same" if right.same(out) else "other weights"), ""


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 1 if a training is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of each bundle")
    parser.add_argument("--bundles", nargs="+", default=list(BUNDLES), choices=list(BUNDLES), help="which ones")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args(argv)
    os.environ.update(CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    start_server()
    counts: Counter[tuple[str, str]] = Counter()
    print("| bundle | kill | situation | killed after | verdict | note |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(arguments.jobs) as pool:
        for bundle in arguments.bundles:
            folder = Path(temporary) / bundle
            folder.mkdir()
            data = DATA[bundle](folder / "data")
            usual, changed = (unkilled(bundle, data, folder, changes) for changes in ({}, CHANGED))
            if usual.same(changed.folder):
                raise RuntimeError(f"{bundle}: other settings give the same weights, so nothing could be told.")
            turns = list(zip(range(arguments.kills), itertools.cycle(SITUATIONS)))
            kill = partial(one_kill, bundle, folder, seed=arguments.seed, usual=usual, changed=changed)
            for row in pool.map(lambda turn, kill=kill: kill(*turn), turns):
                counts[str(row["situation"]), str(row["verdict"])] += 1
                print("| " + " | ".join(str(value) for value in row.values()) + " |", flush=True)
    print()
    for (situation, verdict), count in sorted(counts.items()):
        print(f"{situation}: {count} {verdict}")
    return int(any(verdict not in ("same", "refused") for _, verdict in counts))


if __name__ == "__main__":
    sys.exit(main())
