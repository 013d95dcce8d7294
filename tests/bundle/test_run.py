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
import re
import sys
from pathlib import Path

import pytest
import torch
from monai.data import DataLoader, Dataset

from monai_armed.bundle import run as bundle
from monai_armed.data import list_images
from monai_armed.transforms import LoadVolumed


@pytest.fixture
def two_bundles(tmp_path, monkeypatch):
    """Folders of two bundles, neither of which is the current folder."""
    folders = [tmp_path / "first bundle", tmp_path / "second"]
    for folder in folders:
        (folder / "configs").mkdir(parents=True)
        (folder / "configs" / "metadata.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["prog"])
    # other tests run bundles in this process, which leaves their folders in the path
    elsewhere = [folder for folder in sys.path if not (Path(folder) / "configs").is_dir()]
    monkeypatch.setattr(sys, "path", ["", *elsewhere])
    return folders


@pytest.mark.parametrize(
    "words",
    [
        ["--config_file", "{0}/configs/train.json"],
        ["--config_file={0}/configs/train.json"],
        ["--config_file", "['{0}/configs/train.json', '{0}/configs/paper.json']"],
        ["--config-file", "first bundle/configs/train.json"],
    ],
)
def test_root_is_that_of_the_config_file(words, two_bundles, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["prog", "run", *(word.format(two_bundles[0]) for word in words), "--x", "1"])
    monkeypatch.setattr(sys, "path", [str(two_bundles[1]), *sys.path])
    assert bundle.bundle_root() == str(two_bundles[0])


def test_root_is_in_the_path_or_here(two_bundles, tmp_path, monkeypatch):
    assert bundle.bundle_root() == str(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(two_bundles[1])])
    assert bundle.bundle_root() == str(two_bundles[1])


def test_find_bundle():
    assert (bundle.find_bundle("armed_ad_mri") / "configs" / "train.json").is_file()
    with pytest.raises(FileNotFoundError, match="no bundle 'nosuch'"):
        bundle.find_bundle("nosuch")


def printed(capsys, action) -> str:
    try:
        action()
    except Exception as error:
        capsys.readouterr()
        bundle._print_plainly(type(error), error, error.__traceback__)
    return capsys.readouterr().err


def test_errors_of_ours_are_one_sentence(capsys, tmp_path):
    text = printed(capsys, lambda: list_images(tmp_path))
    assert text.startswith(f"error: folder {tmp_path} holds no NIfTI file") and "Traceback" not in text


def test_errors_of_ours_in_another_process(capsys, tmp_path):
    (tmp_path / "a.nii").write_bytes(b"no image")
    loader = DataLoader(Dataset(list_images(tmp_path), LoadVolumed("image")), num_workers=1)
    text = printed(capsys, lambda: list(loader))
    assert text.startswith(f"error: image file {tmp_path / 'a.nii'} cannot be read") and "Traceback" not in text


def test_no_access_is_one_sentence(capsys):
    def full():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/some/file")

    assert printed(capsys, full).startswith("error: /some/file cannot be read or written (No space left on device)")


def test_other_errors_keep_their_traceback(capsys):
    assert "Traceback" in printed(capsys, lambda: torch.zeros(2) @ torch.zeros(3))


def test_plain_errors_can_be_turned_off(monkeypatch):
    hook = sys.excepthook
    monkeypatch.setattr(sys, "excepthook", hook)
    monkeypatch.setenv("MONAI_ARMED_TRACEBACK", "1")
    bundle.plain_errors()
    assert sys.excepthook is hook
    monkeypatch.delenv("MONAI_ARMED_TRACEBACK")
    bundle.plain_errors()
    assert sys.excepthook is bundle._print_plainly


@pytest.mark.parametrize("version", ["1.5.2", "1.6.0", "1.6"])
def test_old_versions_are_refused(version, monkeypatch):
    bundle.require_versions()
    monkeypatch.setattr("monai.__version__", version)
    with pytest.raises(ValueError, match=rf"MONAI {re.escape(version)} is too old: this bundle needs 1\.6\.1"):
        bundle.require_versions()
