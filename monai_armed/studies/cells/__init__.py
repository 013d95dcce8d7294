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

"""Images of single cells of many batches.

``monai_armed.studies.cells.simulator`` can be run with ``python -m`` and is therefore not imported here.
"""

from __future__ import annotations

from .batches import cell_batches
from .images import METASTATIC_EFFICIENCY, cells_to_predict, read_cells
from .partitions import cell_partitions

__all__ = ["METASTATIC_EFFICIENCY", "cell_batches", "cell_partitions", "cells_to_predict", "read_cells"]
