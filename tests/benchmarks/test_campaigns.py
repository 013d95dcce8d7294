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

"""The fault campaign and the kill campaign: how they judge, and a few of their cases."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
TRACE = "Traceback (most recent call last):\n  ...\nValueError: no"
SAID = "epoch 1\nerror: site 'x' is unknown.\n(set MONAI_ARMED_TRACEBACK=1 to see where)\n"
USAGE = (
    "usage: python -m monai_armed ...\npython -m monai_armed compare: error: argument --folds: invalid int value: 'x'\n"
)


@pytest.fixture(scope="module")
def modules():
    """The campaigns' modules by name."""
    names = ("fault_campaign", "kill_campaign", "campaign.case", "campaign.commands")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield {name: importlib.import_module(name) for name in names}


def wrong(_outcome) -> None:
    raise AssertionError("half of the rows are missing")


@pytest.mark.parametrize(
    ("wanted", "code", "text", "verdict"),
    [
        (lambda c: c.says("site 'x'"), 1, SAID, "sentence"),
        (lambda c: c.says("folds"), 2, USAGE, "sentence"),
        (lambda c: c.says("batch"), 1, SAID, "misleading"),
        (lambda c: c.says("site"), 1, SAID * 2, "misleading"),  # not one sentence
        (lambda c: c.says("site"), 1, TRACE, "traceback"),
        (lambda c: c.says("site"), 1, SAID + TRACE, "traceback"),
        (lambda c: c.says("site"), 134, SAID + "terminate called without an active exception", "traceback"),
        (lambda c: c.says("site"), 1, "left out", "traceback"),  # no sentence
        (lambda c: c.says("site"), 0, "done", "silently wrong"),
        (lambda c: c.says("site"), None, "", "hangs"),
        (lambda c: c.goes_on(lambda outcome: None), 0, "done", "accepted"),
        (lambda c: c.goes_on(wrong), 0, "done", "silently wrong"),
        (lambda c: c.goes_on(wrong), 1, SAID, "misleading"),
        (lambda c: c.goes_on(c.told("done")), 0, "Done.", "accepted"),
        (lambda c: c.goes_on(c.told("4 rows left out")), 0, "Done.", "silently wrong"),
        (lambda c: c.either("site", wrong), 1, SAID, "sentence"),
        (lambda c: c.either("site", wrong), 0, "done", "silently wrong"),
        (lambda c: c.reports("1 of 40", lambda outcome: None), 1, "1 of 40 is bad", "sentence"),
        (lambda c: c.reports("1 of 40", wrong), 1, "1 of 40 is bad", "misleading"),
        (lambda c: c.reports("1 of 40", lambda outcome: None), 0, "1 of 40 is bad", "silently wrong"),
    ],
)
def test_verdicts(wanted, code, text, verdict, modules):
    case = modules["campaign.case"]
    assert wanted(case).verdict(case.Outcome(code, text, None))[0] == verdict


def test_cases_are_many_and_of_every_bundle_and_command(modules, tmp_path):
    cases = modules["fault_campaign"].CASES
    assert len(cases) >= 150
    assert not [name for name, count in Counter(case.name for case in cases).items() if count > 1]
    commands = Counter(tuple(case.name.split("/")[:2]) for case in cases)
    for bundle in modules["campaign.commands"].BUNDLES:
        assert all(commands[bundle, step] > 5 for step in ("train", "evaluate", "inference", "resume")), bundle
    assert {step for _, step in commands} >= {"compare", "spirals", "mci", "preprocess"}
    for case in cases:
        words = case.command(modules["campaign.case"].Place(tmp_path, case.bundle, tmp_path))
        assert words[:2] in (["-m", "monai.bundle"], ["-m", "monai_armed"])
        assert not re.search("<(data|run|other|out|folder|bundle)>", " ".join(words)), words


def test_config_files_exist(modules):
    commands = modules["campaign.commands"]
    for bundle in commands.BUNDLES:
        for step in ("train", "evaluate", "inference"):
            for model in ("armed", "conventional"):
                assert all(Path(file).is_file() for file in commands.config_files(bundle, step, model))


def test_weights_are_compared_bit_by_bit(modules, tmp_path):
    import torch

    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        torch.save({"x": torch.tensor([0.0, float("nan")])}, folder / "model.pt")
    trained = modules["kill_campaign"].Trained(tmp_path, folders[0], 1.0, 1.0)
    assert trained.same(folders[1])
    torch.save({"x": torch.tensor([-0.0, float("nan")])}, folders[1] / "model.pt")
    assert not trained.same(folders[1])


@pytest.mark.slow
def test_some_cases_and_kills_are_run(modules, capsys):
    assert modules["fault_campaign"].main(["--only", "spirals/inference/(good|no-x1|cluster-99)$"]) == 0
    printed = capsys.readouterr().out
    assert "3 inputs: 2 sentence, 1 accepted, 0 traceback" in printed and printed.count("| spirals/inference/") == 3
    modules["kill_campaign"].main(["--bundles", "spirals", "--kills", "1"])
    assert "alone: 1 same" in capsys.readouterr().out
