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

"""The comparison runner and the two studies that use it, on the spirals and the MCI table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from .case import Case, Outcome, Place, either, goes_on, says, table
from .commands import BUNDLES
from .execution import run_command
from .spirals_cases import only


def results(folds: int, model: str = "conventional", folder: str = "out") -> Callable[[Outcome], None]:
    """So many folds of the model have an accuracy that is a number."""

    def check(outcome: Outcome) -> None:
        found = pd.read_csv(outcome.place.folder / folder / "results.csv")
        chosen = found[(found["metric"] == "accuracy") & (found["model"] == model)]
        assert chosen["fold"].nunique() == folds, f"{chosen['fold'].nunique()} folds of {model}, {folds} were asked for"
        assert chosen["value"].notna().all(), "a result is NaN"

    return check


def finished(change: Callable[[Path], object]) -> Callable[[Place], None]:
    """A comparison that has been run, in which a file of the first fold is changed afterwards."""

    def edit(place: Place) -> None:
        case = Case("spirals/compare/first", "", goes_on(results(2)))
        code, text = run_command(case.command(place), place.folder, {}, 300)
        assert code == 0, text
        change(place.out / "simulation=1" / "conventional" / "fold_00")

    return edit


def halved(name: str) -> Callable[[Path], object]:
    """A file cut in its middle."""
    return lambda fold: (fold / name).write_bytes((fold / name).read_bytes()[: (fold / name).stat().st_size // 2])


OPTIONS = table(
    "spirals/compare",
    ("good", "two folds of one model", goes_on(results(2))),
    *(
        (f"{name}={value}", f"--{name} {value}", wanted, {name: value})
        for name, value, wanted in [
            ("bundle", "<folder>/none", says("not a bundle")),
            ("bundle", "<folder>", says("not a bundle")),
            ("models", "nosuch", says("no model 'nosuch'")),
            ("models", "", says("model")),
            ("models", "conventional,conventional", either("twice", results(2))),
            ("models", "Conventional", says("Conventional")),
            ("folds", 0, says("folds")),
            ("folds", -2, says("folds")),
            ("folds", 1, says("folds|n_splits")),
            ("folds", "two", says("folds")),
            ("folds", 500, says("500|folds")),
            ("split", "random", says("split")),
            ("split", "grouped", says("subject|grouped")),
            ("variant", "nosuch", says("variant 'nosuch'")),
            ("only", ["simulation=9"], says("no setting")),
            ("only", ["simulation"], says("id=value")),
            ("set", ["epochs"], says("id=value")),
            ("set", ["max_epoch=3"], says("max_epoch'?.*max_epochs")),
            ("set", ["learning_rate=-1"], says("learning.rate")),
            ("set", ["learning_rate=1e30"], says("NaN|finite|diverge")),
            ("set", ["max_epochs=0"], says("max_epochs")),
            ("set", ["batch_size=100000"], says("batch_size")),
            ("set", ["dataset_dir=<folder>/none"], says("no spiral data")),
            ("set", ["=3"], says("id=value|id")),
            ("repeat", "nosuch", says("nosuch")),
            ("repeat", "data_sed", says("data_sed'?.*data_seed")),
            ("seed", "abc", says("seed")),
            ("seed", -1, says("seed")),
            ("processes", 0, says("processes")),
            ("processes", -1, says("processes")),
            ("processes", "many", says("processes")),
            ("inner-folds", 0, either("inner.folds", results(2))),
            ("out", "/dev/null/out", says("cannot be written|--out")),
            ("fold", 3, either("fold", results(3))),
        ]
    ),
    ("nan", "points that are NaN", says("NaN|finite"), only("x", lambda x: np.where(x > 0.5, np.nan, x))),
    ("one-cluster", "all points of one cluster", says("cluster"), only("cluster", lambda c: c * 0)),
    ("one-class", "all labels are 0", says("class|label"), only("y", lambda y: y * 0)),
)

AGAIN = table(
    "spirals/compare",
    *(
        (f"again-{name}", what, goes_on(results(2)), finished(change))
        for name, what, change in [
            ("whole", "run again with all results there", lambda fold: None),
            ("cut-result", "result.json cut short", halved("result.json")),
            (
                "cut-weights",
                "model.pt cut short, and no result",
                lambda f: ((f / "result.json").unlink(), halved("model.pt")(f)),
            ),
            (
                "no-weights",
                "no model.pt, and no result",
                lambda f: ((f / "result.json").unlink(), (f / "model.pt").unlink()),
            ),
            ("cut-samples", "samples cut short", lambda f: halved("samples_0.json")(f.parents[1])),
            ("null-result", "result.json holds null", lambda f: (f / "result.json").write_text("null")),
        ]
    ),
)

STUDIES = [
    *table(
        "spirals/spirals",
        (
            "mci-bundle",
            "the bundle of another study",
            says("bundle|simulation|setting"),
            {"bundle": str(BUNDLES["mci"])},
        ),
        ("starts--1", "--starts -1", says("starts"), {"starts": -1}),
        ("starts-abc", "--starts abc", says("starts"), {"starts": "abc"}),
    ),
    *table(
        "mci/mci",
        (
            "spirals-bundle",
            "the bundle of another study",
            says("bundle|probes|setting"),
            {"bundle": str(BUNDLES["spirals"]), "only": []},
        ),
        ("no-table", "table does not exist", says("there is no table"), {"set": ["dataset_dir=<folder>/none.csv"]}),
        ("no-models", "no model", says("model"), {"models": ","}),
    ),
    *table(
        "mci/compare",
        ("num_seen=0", "num_seen 0", says("num_seen|seen"), {"set": ["num_seen=0"]}),
    ),
    *table(
        "ad_mri/compare",
        ("no-folder", "folder does not exist", says("does not exist"), {"set": ["dataset_dir=<folder>/none"]}),
    ),
    *table(
        "cell_aec/compare",
        ("no-folder", "folder does not exist", says("there is no"), {"set": ["dataset_dir=<folder>/none"]}),
    ),
]

CASES = [*OPTIONS, *AGAIN, *STUDIES]
