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

import pickle
from pathlib import Path

import numpy as np
import pytest

from monai_armed.compare.samples_file import read_samples, write_samples


class Marker:
    """Makes a file where it is unpickled, as a hostile pickle would run a command."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def partitions() -> dict:
    rng = np.random.default_rng(0)
    sample = {
        "image": rng.normal(size=(2, 3)).astype(np.float32),
        "label": np.int64(1),
        "row": {"AGE": 0.1 + 0.2, "MMSE": float("nan"), "SITE": "002", "note": None},
        "mask": np.array([True, False]),
        "files": ["a.nii", "b ü.nii"],
        "cluster": 3,
    }
    return {"train": [sample], "unseen": [], "sites": ["002", "5"], "truth": object()}


def test_samples_come_back_to_the_last_bit(tmp_path):
    given = partitions()
    back = read_samples(write_samples(given, tmp_path / "samples.json"))
    assert set(back) == {"train", "unseen", "sites"} and back["sites"] == ["002", "5"] and back["unseen"] == []
    old, new = given["train"][0], back["train"][0]
    for key in ("image", "label", "mask"):
        assert type(new[key]) is type(old[key]) and new[key].dtype == old[key].dtype
        assert new[key].tobytes() == old[key].tobytes() and new[key].shape == old[key].shape
    assert np.isnan(new["row"].pop("MMSE")) and np.isnan(old["row"].pop("MMSE"))
    assert new["row"] == old["row"] and new["files"] == old["files"] and new["cluster"] == 3


def test_the_same_samples_are_not_written_again(tmp_path):
    path = write_samples(partitions(), tmp_path / "samples.json")
    before = path.stat().st_mtime_ns
    write_samples(partitions(), path)
    assert path.stat().st_mtime_ns == before
    path.write_bytes(path.read_bytes()[:50])  # a disk was full
    assert read_samples(write_samples(partitions(), path))["train"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (object(), r"partitions\['val'\]\[1\]\['image'\] is a object"),
        ({1: "a"}, "dict with keys that are no text"),
        (np.array([object()]), "array of object"),
        ([1, {"deep": 1j}], r"\['image'\]\[1\]\['deep'\] is a complex"),
    ],
)
def test_what_no_file_holds_is_named(value, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        write_samples({"val": [{"image": "a.nii"}, {"image": value}]}, tmp_path / "samples.json")


def test_reading_runs_nothing_that_another_has_put_there(tmp_path):
    path = tmp_path / "samples.json"
    path.write_bytes(pickle.dumps({"train": Marker(tmp_path / "ran")}))
    with pytest.raises(ValueError, match=r"samples.json is damaged .*: remove it"):
        read_samples(path)
    assert not (tmp_path / "ran").exists()
