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

import errno
import os
import sys
import threading
import types

import pytest
import torch
from emulated_device import emulated_device
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset

from monai_armed.bundle.plain_errors import plain_errors, print_plainly, sentence_of
from monai_armed.data import list_images
from monai_armed.transforms import LoadVolumed

no_gpu = pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU")


def sentence(action) -> str:
    try:
        action()
    except Exception as error:
        return sentence_of(error)
    raise AssertionError("nothing was raised")


def test_errors_of_ours_are_one_sentence(capsys, tmp_path):
    try:
        list_images(tmp_path)
    except FileNotFoundError as error:
        print_plainly(type(error), error, error.__traceback__)
    text = capsys.readouterr().err
    assert text.startswith(f"error: folder {tmp_path} holds no NIfTI file") and "Traceback" not in text
    assert "MONAI_ARMED_TRACEBACK" in text.splitlines()[1] and len(text.splitlines()) == 2


def test_errors_of_ours_in_another_process(tmp_path):
    (tmp_path / "a.nii").write_bytes(b"no image")
    loader = DataLoader(Dataset(list_images(tmp_path), LoadVolumed("image")), num_workers=1)
    text = sentence(lambda: list(loader))
    assert text.startswith(f"image file {tmp_path / 'a.nii'} cannot be read") and "Traceback" not in text


def test_what_cannot_be_written_is_named():
    def full():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/some/file")

    assert sentence(full).startswith("/some/file cannot be read or written (No space left on device); choose another")


@pytest.mark.parametrize("device", ["cuda:0", "mps"])
@no_gpu
def test_a_device_that_is_not_there(device):
    text = sentence(lambda: torch.zeros(1).to(device))
    assert text.startswith("this machine has no such device (") and text.endswith("give --device cpu.")


@no_gpu
def test_a_device_whose_start_only_seemed_to_succeed():
    with emulated_device() as device:  # from here on PyTorch believes that CUDA has started
        torch.zeros(1, device=device)
    test_a_device_that_is_not_there("cuda:0")


def test_a_device_that_is_none():
    text = sentence(lambda: torch.zeros(1).to("toaster"))
    assert text.startswith("this machine has no such device (") and "toaster" in text


def test_a_batch_of_one_sample():
    text = sentence(lambda: torch.nn.BatchNorm1d(3)(torch.zeros(1, 3)))
    assert text.startswith("a batch of one sample") and text.endswith("give another batch_size.")


PARAMETERS = "$list(torch.nn.Linear(1, 1).parameters())"


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"_target_": "DataLoader", "dataset": [1], "batch_size": 0}, "should be a positive integer value, but got"),
        ({"_target_": "DataLoader", "dataset": [1], "batch_size": "abc"}, "but got batch_size=abc"),
        ({"_target_": "DataLoader", "dataset": [1], "num_workers": -1}, "num_workers option should be non-negative"),
        ({"_target_": "torch.optim.NAdam", "params": PARAMETERS, "lr": -1}, "Invalid learning rate: -1"),
        ({"_target_": "torch.optim.NAdam", "params": PARAMETERS, "lr": "x"}, "'float' and 'str' (torch.optim.NAdam)"),
        (
            {"_target_": "DataLoader", "dataset": [1], "batch_sise": 2},
            "monai.data.dataloader.DataLoader has no argument 'batch_sise': did you mean 'batch_size'?",
        ),
        (
            {"_target_": "monai_armed.handlers.EpochSeed", "sead": 2},
            "monai_armed.handlers.EpochSeed has no argument 'sead': did you mean 'seed'?",
        ),
        ({"_target_": "monai_armed.handlers.EpochSeed"}, "EpochSeed is missing 1 required positional argument: 'seed'"),
        ({"_target_": "monai_armed.nosuch"}, "there is no 'monai_armed.nosuch': check _target_"),
        ({"_target_": "monai_armed.handlers.EpochSeed", "seed": -1}, "seed must not be negative, got -1"),
        ("$@nosuch + 1", "the referring item `@nosuch` is not defined"),
    ],
)
def test_what_a_part_says_against_its_arguments(part, says):
    text = sentence(lambda: ConfigParser({"outer": {"inner": part}}).get_parsed_content("outer#inner"))
    assert says in text and "\n" not in text
    assert text.startswith("outer#inner: ") or says.startswith("seed must")


def test_other_errors_keep_their_traceback(capsys):
    assert not sentence(lambda: torch.zeros(2) @ torch.zeros(3))
    deep = {"part": {"_target_": "torch.nn.functional.mse_loss", "input": 1, "target": "x"}}
    assert sentence(lambda: ConfigParser(deep).get_parsed_content("part")) == ""
    error = ZeroDivisionError("division by zero")
    print_plainly(type(error), error, None)
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("program", "environment", "replaced"),
    [
        ("monai.bundle.__main__", "", True),
        ("monai_armed.__main__", "", True),
        ("monai.bundle.__main__", "1", False),
        ("pytest.__main__", "", False),
        (None, "", False),
    ],
)
def test_only_a_command_line_of_ours_is_told_so(monkeypatch, program, environment, replaced):
    main = types.ModuleType("__main__")
    main.__spec__ = None if program is None else types.SimpleNamespace(name=program)
    hook = sys.excepthook
    monkeypatch.setattr(sys, "excepthook", hook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setenv("MONAI_ARMED_TRACEBACK", environment)
    plain_errors()
    assert sys.excepthook is (print_plainly if replaced else hook)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "error in a thread: a file cannot be written (No space left",
        ),
        (KeyError("a bug"), "Traceback"),
    ],
)
def test_an_error_that_ends_a_thread(monkeypatch, capsys, error, said):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setitem(
        sys.modules, "__main__", types.SimpleNamespace(__spec__=types.SimpleNamespace(name="monai.bundle.__main__"))
    )
    monkeypatch.delenv("MONAI_ARMED_TRACEBACK", raising=False)
    plain_errors()

    def fail() -> None:
        raise error

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    printed = capsys.readouterr().err
    assert said in printed and ("Traceback" in printed) == (said == "Traceback")
