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

"""A case of the fault campaign: what is wrong with the input, the command, and what is right."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from .commands import BUNDLES, SHORT, bundle_command, package_command

VERDICTS = ("sentence", "accepted", "traceback", "silently wrong", "misleading", "hangs")
RIGHT = VERDICTS[:2]
SENTENCE = re.compile(r"^(?:\s*(?:\x1b\[A)+)?(?:python -m monai_armed.*: )?error: (.+)$", re.M)
SHORT_SET = ["dataset_dir=<data>", "max_epochs=2", "batch_size=16"]  # of a comparison
SETTING = {"spirals": ["simulation=1"], "mci": ["probes=false"], "ad_mri": [], "cell_aec": []}
CRASHES = ("Traceback (most recent call last)", "terminate called", "Segmentation fault")


@dataclass
class Place:
    """
    Where a case is run: its own folder, and copies of the data and of the trained model as soon as they are to be
    changed.

    Args:
        folder: the case's own, which is there and empty.
        bundle: name of the bundle.
        shared: folder with ``data`` and ``run`` of each bundle, made once for all cases.
    """

    folder: Path
    bundle: str
    shared: Path

    def _own(self, kind: str) -> Path:
        original, copy = self.shared / self.bundle / kind, self.folder / kind
        if not copy.exists():
            shutil.copytree(original, copy, symlinks=True)
        return copy

    def _there(self, kind: str) -> Path:
        copy = self.folder / kind
        return copy if copy.exists() else self.shared / self.bundle / kind

    @property
    def data(self) -> Path:
        """Folder of the data, to be changed."""
        return self._own("data")

    @property
    def run(self) -> Path:
        """Folder of a finished training, to be changed; the resumed one goes on in it."""
        return self._own("run")

    @property
    def out(self) -> Path:
        """Where the command writes."""
        return self.folder / "out"

    def filled(self, text: str) -> str:
        """
        Text with paths in the place of ``<data>``, ``<run>`` (of the bundle's own model), ``<other>`` (of the
        conventional one), ``<out>``, ``<folder>`` (the case's own) and ``<bundle>``.
        """
        data = self._there("data")
        places = {"folder": self.folder, "out": self.out, "run": self._there("run"), "bundle": BUNDLES[self.bundle]}
        places["other"] = self.shared / self.bundle / "run_conventional"
        places["data"] = data / "ADNIMERGE.csv" if self.bundle == "mci" else data
        return re.sub("<(" + "|".join(places) + ")>", lambda match: str(places[match[1]]), text)


@dataclass(frozen=True)
class Outcome:
    """What a command did: exit code (None: it was ended as it took too long), all that it printed, and where."""

    code: int | None
    text: str
    place: Place

    @property
    def sentences(self) -> list[str]:
        """What it says of the error."""
        return SENTENCE.findall(self.text)

    @property
    def last_line(self) -> str:
        """The last line that a user sees, but for the hint at the traceback."""
        lines = [line.strip() for line in re.split(r"[\r\n]+", self.text) if line.strip()]
        lines = [line for line in lines if not line.startswith("(set MONAI_ARMED_TRACEBACK")]
        return lines[-1] if lines else ""


Check = Callable[[Outcome], None]


@dataclass(frozen=True)
class Wanted:
    """
    What is right for an input.

    Args:
        sentence: the command fails, and its one sentence matches; None: it must not fail with one.
        accepted: it succeeds, and its results pass the check; None: it must not succeed.
        reported: it goes on, says what matches, ends with an exit code above 0, and what it leaves passes the check.
    """

    sentence: str | None = None
    accepted: Check | None = None
    reported: tuple[str, Check] | None = None

    def verdict(self, outcome: Outcome) -> tuple[str, str]:
        """The verdict, and why where it is not right."""
        if outcome.code is None:
            return "hangs", "it was ended as it took too long"
        if outcome.code == 0:
            if self.accepted is None:
                return "silently wrong", "it went on"
            return _checked(self.accepted, outcome, "accepted")
        if any(crash in outcome.text for crash in CRASHES):
            return "traceback", ""
        if self.reported is not None:
            pattern, check = self.reported
            if not re.search(pattern, outcome.text, re.I):
                return "misleading", f"no match of {pattern!r}"
            return _checked(check, outcome, "sentence", "misleading")
        if not outcome.sentences:
            return "traceback", "it ends without a word"
        if self.sentence is None:
            return "misleading", "it should have gone on"
        if len(outcome.sentences) > 1 or not re.search(self.sentence, outcome.sentences[0], re.I):
            return "misleading", f"no match of {self.sentence!r}"
        return "sentence", ""


def _checked(check: Check, outcome: Outcome, right: str, wrong: str = "silently wrong") -> tuple[str, str]:
    try:
        check(outcome)
    except (AssertionError, OSError, KeyError, ValueError) as error:
        return wrong, f"{type(error).__name__}: {error}".splitlines()[0]
    return right, ""


def says(sentence: str) -> Wanted:
    """It ends with one sentence that matches."""
    return Wanted(sentence=sentence)


def reports(pattern: str, check: Check) -> Wanted:
    """It does the rest, which the check looks at, says what it could not do, and fails in the end."""
    return Wanted(reported=(pattern, check))


def goes_on(check: Check) -> Wanted:
    """It does what was asked, rightly."""
    return Wanted(accepted=check)


def either(sentence: str, check: Check) -> Wanted:
    """One of the two: nothing in the documents says which."""
    return Wanted(sentence=sentence, accepted=check)


def told(pattern: str, check: Check | None = None) -> Check:
    """A check that it printed something that matches, and of its results."""

    def checked(outcome: Outcome) -> None:
        assert re.search(pattern, outcome.text, re.I), f"nothing printed matches {pattern!r}"
        if check is not None:
            check(outcome)

    return checked


@dataclass(frozen=True)
class Case:
    """
    One bad, odd or unusual input.

    Args:
        name: ``bundle/command/what``; the command is train, resume, evaluate, inference or one of ours.
        what: in words.
        wanted: what is right.
        options: of the command, in addition to those it needs, or in their place; None leaves one out. Paths are
            written as :py:meth:`Place.filled` says.
        edit: changes the data or the trained run beforehand.
        model: of the bundle.
    """

    name: str
    what: str
    wanted: Wanted
    options: Mapping[str, object] = field(default_factory=dict)
    edit: Callable[[Place], object] | None = None
    model: str = "armed"

    @property
    def bundle(self) -> str:
        """Name of the bundle."""
        return self.name.split("/")[0]

    def command(self, place: Place) -> list[str]:
        """Words after ``python``."""
        step = self.name.split("/")[1]
        usual: dict[str, object] = {"dataset_dir": "<data>", "output_dir": "<out>"}
        if step in ("train", "resume"):
            usual |= SHORT[self.bundle]
        if step == "resume":
            usual |= {"output_dir": "<run>", "resume": "true"}
        if step in ("evaluate", "inference"):
            usual |= {"ckpt_path": "<run>/model.pt"}
        if step == "preprocess":
            usual = {"dataset_dir": "<data>", "output_dir": "<out>"}
        elif step in ("compare", "spirals", "mci"):
            usual = {"bundle": "<bundle>", "out": "<out>", "folds": 2, "models": "conventional"}
            usual |= {"set": SHORT_SET, "only": SETTING[self.bundle]}
        options = {name: value for name, value in {**usual, **self.options}.items() if value is not None}
        if "set" in usual and "set" in self.options:
            options["set"] = [*SHORT_SET, *self.options["set"]]
        filled = {
            name: [place.filled(str(v)) for v in value] if isinstance(value, list) else _filled(value, place)
            for name, value in options.items()
        }
        if step in ("train", "resume", "evaluate", "inference"):
            return bundle_command(self.bundle, "train" if step == "resume" else step, filled, self.model)
        return package_command(step, filled)


def _filled(value: object, place: Place) -> object:
    return value if value is True else place.filled(str(value))


def same_as_good(outcome: Outcome) -> None:
    """
    The very samples are evaluated that are with the settings of the training, and with the same results, but for the
    clusters that the randomized prediction draws by the seed.
    """
    tables = [
        pd.read_csv(folder / "evaluated_predictions.csv")
        for folder in (outcome.place.out, outcome.place.shared / outcome.place.bundle / "evaluated")
    ]
    keys = [name for name in ("partition", "prediction", "subject", "file", "label") if name in tables[1]]
    numbers = [name for name in ("score",) if name in tables[1]]
    new, good = (t.sort_values(keys + numbers)[keys + numbers].reset_index(drop=True) for t in tables)
    assert new[keys].equals(good[keys]), f"other samples are evaluated: {len(new)} rows, {len(good)} with the settings"
    drawn = new["prediction"].eq("randomized") if "prediction" in new else pd.Series(False, new.index)
    new, good = new[~drawn], good[~drawn]
    assert np.allclose(new[numbers], good[numbers], atol=1e-5), "the samples are the same, the scores are not"


def table(command: str, *rows: tuple) -> list[Case]:
    """
    Cases of one command, such as ``"mci/train"``, from rows of name, words, what is right, and in any order as far as
    there is need: a dict of options, a function that edits, the name of a model.
    """
    cases = []
    for name, what, wanted, *rest in rows:
        options = next((part for part in rest if isinstance(part, Mapping)), {})
        edit = next((part for part in rest if callable(part)), None)
        model = next((part for part in rest if isinstance(part, str)), "armed")
        cases.append(Case(f"{command}/{name.replace('/', '_')}", what, wanted, options, edit, model))
    return cases
