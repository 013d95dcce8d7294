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

"""Readers, splits and simulators: where the samples come from.

``monai_armed.data.ad_mri_simulator`` can be run with ``python -m`` and is therefore not imported here.
"""

from __future__ import annotations

from .ad_mri import ad_mri_partitions
from .ad_mri_ceilings import ad_mri_ceilings
from .ad_mri_truth import with_true_regions
from .bids import load_bids_datalist, load_csv_datalist
from .cached_files import file_hashing
from .cell_images import METASTATIC_EFFICIENCY, cell_partitions, read_cells
from .images import list_images
from .mci import mci_ceiling, mci_partitions, read_new_subjects
from .splits import split_by_subject, split_seen_unseen

__all__ = [
    "METASTATIC_EFFICIENCY",
    "ad_mri_partitions",
    "ad_mri_ceilings",
    "cell_partitions",
    "file_hashing",
    "load_bids_datalist",
    "load_csv_datalist",
    "list_images",
    "mci_ceiling",
    "mci_partitions",
    "read_cells",
    "read_new_subjects",
    "split_by_subject",
    "split_seen_unseen",
    "with_true_regions",
]
