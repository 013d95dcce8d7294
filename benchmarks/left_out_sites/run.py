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

"""Brains of many sites, each site left out in turn; ``python benchmarks/left_out_sites/run.py STUDY --data PATH``.

STUDY is ``fcon1000`` (age from cortical thickness) or ``abide`` (autism from connectomes). Every row of
:py:data:`METHODS` is fitted, and ``results.csv`` and ``results.md`` are written after each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from choice import CHOSEN
from methods import METHODS as FIXED
from scores import score
from studies import READERS
from tqdm import tqdm

METHODS = {**FIXED, **CHOSEN}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=list(READERS))
    parser.add_argument("--data", type=Path, required=True, help="the file of the study, or its folder")
    parser.add_argument("--out", type=Path, default=Path("runs/left_out_sites"))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seed", type=int, default=0, help="of the cross-validation within the seen sites")
    args = parser.parse_args()
    study, rows = READERS[args.study](args.data), []
    folder = args.out / args.study
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{study.name}: {len(study.label)} people of {len(study.names)} sites, {study.features.shape[1]} features")
    for name in tqdm(args.methods, desc=study.name):
        try:
            rows.append({"model": name, **score(study, METHODS[name], args.seed)})
        except ImportError as error:
            print(f"{name} is left out: {error}; pip install --no-deps neuroHarmonize neuroCombat brings it")
        _write(pd.DataFrame(rows), folder)
    print((folder / "results.md").read_text(encoding="utf-8"))


def _write(table: pd.DataFrame, folder: Path) -> None:
    table.to_csv(folder / "results.csv", index=False)
    lines = ["| " + " | ".join(table.columns) + " |", "|---" * len(table.columns) + "|"]
    for row in table.itertuples(index=False):
        cells = [row[0], *("" if value != value else f"{value:.3f}" for value in row[1:])]
        lines.append("| " + " | ".join(cells) + " |")
    (folder / "results.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
