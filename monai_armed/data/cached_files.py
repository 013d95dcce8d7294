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
"""Key of what a cache keeps of a sample, by the files that it names as they are now."""

from __future__ import annotations

import os
from typing import Any

from monai.data.utils import pickle_hashing

__all__ = ["file_hashing"]


def file_hashing(item: dict[str, Any]) -> bytes:
    """
    Hash of a sample for MONAI's ``PersistentDataset(hash_func=...)``: another one once a file that it names is another,
    so that an image that is replaced is not taken from the cache.

    Args:
        item: a dict, in which any value may be the path of a file.

    Returns:
        the hash.
    """
    files = [value for value in item.values() if isinstance(value, (str, os.PathLike)) and os.path.isfile(value)]
    stats = [os.stat(file) for file in files]
    return pickle_hashing([item, [(stat.st_size, stat.st_mtime_ns) for stat in stats]])
