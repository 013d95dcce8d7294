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

"""Readers, splits and files: where any study's samples come from."""

from __future__ import annotations

from .balanced_sampler import balanced_sampler
from .bids import load_bids_datalist, load_csv_datalist
from .cached_dataset import CachedDataset
from .cached_files import file_hashing
from .images import list_images
from .kept_rows import KeptRows
from .splits import split_by_subject, split_seen_unseen
from .tolerant_loader import TolerantLoader

__all__ = [
    "CachedDataset",
    "KeptRows",
    "TolerantLoader",
    "balanced_sampler",
    "file_hashing",
    "list_images",
    "load_bids_datalist",
    "load_csv_datalist",
    "split_by_subject",
    "split_seen_unseen",
]
