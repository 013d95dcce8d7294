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

import os
from pathlib import Path

import pytest
from monai.data import PersistentDataset
from monai.data.utils import pickle_hashing

from monai_armed.data import file_hashing
from monai_armed.transforms import CoronalSliced, WorldBoxd


def test_a_file_that_is_replaced_is_another_sample(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("one")
    item = {"image": str(file), "label": 1}
    dataset = PersistentDataset([item], lambda d: Path(d["image"]).read_text(), tmp_path / "cache", file_hashing)
    assert dataset[0] == "one" and file_hashing(item) == file_hashing(dict(item))
    file.write_text("two")
    os.utime(file, ns=(0, 1))
    assert dataset[0] == "two"
    assert file_hashing(item | {"label": 0}) != file_hashing(item)


@pytest.mark.parametrize("transform", [CoronalSliced, lambda keys: WorldBoxd(keys, (0, 0, 0), (4, 4, 4))])
def test_the_same_cut_hits_the_cache(transform):
    assert pickle_hashing(transform("image")) == pickle_hashing(transform("image"))


def test_the_bundle_caches_by_file():
    configs = Path(__file__).parents[2] / "bundles" / "armed_ad_mri" / "configs"
    for name in ("train", "evaluate"):
        text = (configs / f"{name}.json").read_text()
        assert text.count("monai_armed.data.CachedDataset") > 0 and "PersistentDataset" not in text
