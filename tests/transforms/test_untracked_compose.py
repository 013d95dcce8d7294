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
from monai.data import CacheDataset, MetaTensor, get_track_meta
from monai.transforms import Compose, Lambdad, RandAffined, RandFlipd

from monai_armed.transforms import UntrackedCompose, scanner_augmentation

RANDOM = [
    RandFlipd("image", prob=0.5, spatial_axis=1),
    RandAffined("image", prob=1.0, translate_range=[2.0, 2.0], rotate_range=0.1, padding_mode="zeros"),
    scanner_augmentation("image"),
]


def made(kind: type[Compose], count: int = 6) -> list[torch.Tensor]:
    transform = kind(RANDOM)
    transform.set_random_state(seed=0)
    dataset = CacheDataset([{"image": torch.rand(1, 16, 16)}] * count, transform, progress=False)
    torch.manual_seed(0)
    return [item["image"] for item in dataset]


def test_the_values_are_composes_and_the_tensors_are_plain():
    torch.manual_seed(1)
    tracked = made(Compose)
    torch.manual_seed(1)
    plain = made(UntrackedCompose)
    assert all(isinstance(image, MetaTensor) for image in tracked)
    assert all(type(image) is torch.Tensor for image in plain)
    for one, other in zip(tracked, plain):
        assert torch.equal(one.as_tensor(), other)
    assert get_track_meta()


def test_an_error_leaves_the_record_on():
    def fail(_):
        raise OSError("no")

    with pytest.raises(RuntimeError, match="applying transform"):
        UntrackedCompose([Lambdad("image", fail)])({"image": torch.rand(1, 4, 4)})
    assert get_track_meta()
