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
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from monai.data import DataLoader
from monai.transforms import Compose, EnsureTyped, LoadImaged

from monai_armed.data.cached_dataset import CachedDataset
from monai_armed.studies.ad_mri.saliency import draw_images
from monai_armed.studies.ad_mri.truth import with_true_regions
from monai_armed.transforms.coronal_slice import CoronalSliced

__all__ = ["saliency_loaders"]


def saliency_loaders(
    partitions: Mapping[str, Sequence[Any]],
    dataset_dir: str | os.PathLike[str],
    number: int,
    transform: Callable,
    size: int,
    pixel_size: float,
    cache_dir: str | os.PathLike[str],
    seed: int = 0,
    num_workers: int = 0,
) -> dict[str, DataLoader]:
    """
    The images whose saliency is drawn, with their true regions, if these are known.

    Args:
        partitions: data lists ``"test"`` and ``"unseen"``.
        dataset_dir: the data, with the truth if they are simulated.
        number: images of each partition.
        transform: transforms of an image.
        size: height and width of the slice that they cut.
        pixel_size: of the slice.
        cache_dir: folder of the cache.
        seed: of the draw of the images.
        num_workers: of the loaders.

    Returns:
        loaders of ``"seen"`` and ``"unseen"``, for :py:func:`monai_armed.studies.ad_mri.saliency.score_saliency`.
    """
    regions = [
        LoadImaged("roi", ensure_channel_first=True, allow_missing_keys=True),
        CoronalSliced("roi", size=size, pixel_size=pixel_size, mode="nearest", allow_missing_keys=True),
        EnsureTyped("roi", track_meta=False, allow_missing_keys=True),
    ]
    loaders = {}
    for name, part in (("seen", "test"), ("unseen", "unseen")):
        images = with_true_regions(draw_images(partitions[part], number, seed), dataset_dir)
        dataset = CachedDataset(images, Compose([transform, *regions]), cache_dir)
        loaders[name] = DataLoader(dataset, batch_size=32, num_workers=num_workers)
    return loaders
