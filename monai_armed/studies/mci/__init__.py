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

"""Conversion of mild cognitive impairment, from ADNIMERGE.csv or a simulated table of its form."""

from __future__ import annotations

from .features import agreed_features, fit_features, subjects_to_predict
from .partitions import mci_ceiling, mci_partitions, read_new_subjects

__all__ = [
    "agreed_features",
    "fit_features",
    "mci_ceiling",
    "mci_partitions",
    "read_new_subjects",
    "subjects_to_predict",
]
