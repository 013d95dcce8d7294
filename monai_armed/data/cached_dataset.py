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
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from monai.data import PersistentDataset
from monai.data.utils import pickle_hashing

from .cached_files import file_hashing

__all__ = ["CachedDataset"]


class CachedDataset(PersistentDataset):
    """
    MONAI's ``PersistentDataset`` with a cache that is never out of date: an item is made anew once a file that it names
    is another, the transforms are others, or the cached file is damaged, as a process that is killed can leave it.

    Args:
        data: data list.
        transform: transforms; what they make before the first random one is kept.
        cache_dir: folder of the cache.
    """

    cache_dir: Path

    def __init__(self, data: Sequence, transform: Callable, cache_dir: str | os.PathLike[str]) -> None:
        super().__init__(data, transform, Path(cache_dir), hash_func=file_hashing, hash_transform=pickle_hashing)

    def _cachecheck(self, item_transformed: Any) -> Any:
        name = self.hash_func(item_transformed).decode("utf-8") + self.transform_hash
        file = self.cache_dir / f"{name}.pt"
        if file.is_file() and not zipfile.is_zipfile(file):
            warnings.warn(f"cached file {file} is damaged: it is made anew.", stacklevel=2)
            file.unlink(missing_ok=True)
        return super()._cachecheck(item_transformed)
