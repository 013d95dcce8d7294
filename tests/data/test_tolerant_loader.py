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

from __future__ import annotations

import threading

import pandas as pd
import pytest
import torch
from ignite.engine import Events
from monai.data import Dataset
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose, Lambdad

from monai_armed.data import TolerantLoader


def whole(value):
    if value < 0:
        raise ValueError(f"image file {value}.nii is negative.")
    return torch.full((2,), float(value))


def loader(values, workers=0):
    items = [{"file": f"{value}.nii", "image": value, "label": torch.zeros(1)} for value in values]
    return TolerantLoader(Dataset(items, Compose([Lambdad("image", whole)])), batch_size=2, num_workers=workers)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_the_others_are_evaluated_and_the_bad_are_named(workers, tmp_path, capsys):
    samples = loader([0, -1, -2, -3, 4, 5, -6], workers)
    network = torch.nn.Linear(2, 1)
    evaluator = SupervisedEvaluator(torch.device("cpu"), samples, network, decollate=False)
    for _ in range(2):  # a second run starts anew
        seen = []
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda e, seen=seen: seen.extend(e.state.batch["file"]))
        evaluator.run()
        assert seen == ["0.nii", "4.nii", "5.nii"]
    with pytest.raises(ValueError, match=r"4 of 7 samples could not be used, the other 3 were \(first: .*-1\.nii is"):
        samples.report(tmp_path / "new")
    table = pd.read_csv(tmp_path / "new" / "left_out.csv")
    assert table["file"].tolist() == ["-1.nii", "-2.nii", "-3.nii", "-6.nii"]
    assert table["reason"].tolist() == [f"image file {name} is negative." for name in table["file"]]
    assert capsys.readouterr().err.count("left out: image file") == 4


def test_where_nothing_is_wrong_nothing_is_said_and_an_old_list_goes(tmp_path, capsys):
    samples = loader([1, 2, 3])
    assert [len(batch["image"]) for batch in samples] == [2, 1]
    (tmp_path / "left_out.csv").touch()
    samples.report(tmp_path)
    assert not list(tmp_path.iterdir()) and capsys.readouterr() == ("", "")


def test_where_nothing_is_right_it_ends_with_the_first_reason():
    with pytest.raises(ValueError, match=r"2 of 2 samples could not be used, none was .first: .*-1\.nii is negative\)"):
        list(loader([-1, -2]))


def test_other_errors_are_told_by_their_kind(tmp_path):
    samples = TolerantLoader(Dataset([{"image": 0}, {"image": 1}], lambda d: 1 // d["image"]))
    assert [batch.tolist() for batch in samples] == [[1]]
    assert samples.failed == [("sample 0", "ZeroDivisionError: integer division or modulo by zero")]


def test_the_next_batch_is_loaded_while_the_caller_is_busy():
    loaded = [threading.Event() for _ in range(5)]

    def note(value: int) -> int:
        loaded[value].set()
        return value

    items = [{"file": str(value), "image": value} for value in range(5)]
    for number, _ in enumerate(TolerantLoader(Dataset(items, Lambdad("image", note)), batch_size=1)):
        assert loaded[min(number + 2, 4)].wait(timeout=20)
        assert not any(event.is_set() for event in loaded[number + 3 :])  # and no more than that
