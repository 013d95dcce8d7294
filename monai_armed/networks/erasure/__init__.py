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

from .eraser import ClusterEraser, fold_eraser
from .feature_sums import FeatureSums
from .fit import fit_eraser
from .network_erasers import fit_erasers, layer_sums

__all__ = [
    "ClusterEraser",
    "FeatureSums",
    "fit_eraser",
    "fit_erasers",
    "fold_eraser",
    "layer_sums",
]
