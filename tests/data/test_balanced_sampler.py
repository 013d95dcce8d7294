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

from collections import Counter

import pytest
import torch

from monai_armed.data import balanced_sampler

SIZES = {("a", 0): 60, ("a", 1): 20, ("b", 0): 5, ("b", 1): 35, ("c", 0): 40}


def samples() -> list[dict]:
    return [{"site": site, "label": float(label)} for (site, label), count in SIZES.items() for _ in range(count)]


def test_classes_are_drawn_alike_within_each_cluster_and_clusters_keep_their_share():
    data = samples()
    sampler = balanced_sampler(data, "site")
    assert len(sampler) == 160
    torch.manual_seed(0)
    drawn = Counter((data[i]["site"], data[i]["label"]) for _ in range(60) for i in sampler)
    total = sum(drawn.values())
    wanted = {("a", 0): 0.25, ("a", 1): 0.25, ("b", 0): 0.125, ("b", 1): 0.125, ("c", 0): 0.25}
    for cell, share in wanted.items():
        assert drawn[cell] / total == pytest.approx(share, abs=0.015), cell


def test_what_is_refused():
    with pytest.raises(ValueError, match="datalist is empty"):
        balanced_sampler([], "site")
    with pytest.raises(ValueError, match="samples have no 'center' to balance by, their keys are"):
        balanced_sampler(samples(), "center")
