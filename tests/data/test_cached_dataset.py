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

import pytest
import torch
from monai.transforms import Compose, Lambdad

from monai_armed.data import CachedDataset

CALLS: list[str] = []


def read(path: str) -> torch.Tensor:
    CALLS.append(path)
    return torch.tensor(float(open(path).read()))


@pytest.fixture
def cached(tmp_path):
    (tmp_path / "a.txt").write_text("1.5")
    CALLS.clear()

    def value(transform=read) -> float:
        data = [{"image": str(tmp_path / "a.txt")}]
        return float(CachedDataset(data, Compose([Lambdad("image", transform)]), tmp_path / "cache")[0]["image"])

    return value


def test_an_item_is_made_once(cached, tmp_path):
    assert cached() == cached() == 1.5 and len(CALLS) == 1


def test_an_item_of_a_changed_file_is_made_anew(cached, tmp_path):
    cached()
    (tmp_path / "a.txt").write_text("20.25")
    assert cached() == 20.25


@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_an_item_whose_cached_file_was_cut_off_is_made_anew(cached, tmp_path, length):
    cached()
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(file.read_bytes()[:length])
    with pytest.warns(UserWarning, match=r"cached file .* is damaged: it is made anew"):
        assert cached() == 1.5
    assert cached() == 1.5 and len(CALLS) == 2
