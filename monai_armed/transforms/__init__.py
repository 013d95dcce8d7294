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

"""What happens to a sample between the reader and the batch."""

from __future__ import annotations

from .cell import LoadCellD, LoadCelld, LoadCellDict
from .cluster import ClusterToIndexD, ClusterToIndexd, ClusterToIndexDict
from .coronal_slice import CoronalSlice, CoronalSliceD, CoronalSliced, CoronalSliceDict
from .forgotten_cluster import forgotten_cluster
from .io import LoadVolumeD, LoadVolumed, LoadVolumeDict
from .register_to_template import (
    HIPPOCAMPUS,
    RegisterToTemplate,
    RegisterToTemplateD,
    RegisterToTemplated,
    RegisterToTemplateDict,
)
from .scanner_augmentation import scanner_augmentation
from .skull_strip import SkullStrip, SkullStripD, SkullStripd, SkullStripDict
from .table import EncodeRow, EncodeRowD, EncodeRowd, EncodeRowDict
from .turn_cell import RandTurnCellD, RandTurnCelld, RandTurnCellDict
from .untracked_compose import UntrackedCompose
from .world_box import WorldBox, WorldBoxD, WorldBoxd, WorldBoxDict

__all__ = [
    "ClusterToIndexD",
    "ClusterToIndexDict",
    "ClusterToIndexd",
    "CoronalSlice",
    "CoronalSliceD",
    "CoronalSliceDict",
    "CoronalSliced",
    "EncodeRow",
    "EncodeRowD",
    "EncodeRowDict",
    "EncodeRowd",
    "HIPPOCAMPUS",
    "LoadCellD",
    "LoadCellDict",
    "LoadCelld",
    "LoadVolumeD",
    "LoadVolumeDict",
    "LoadVolumed",
    "RandTurnCellD",
    "RandTurnCellDict",
    "RandTurnCelld",
    "RegisterToTemplate",
    "RegisterToTemplateD",
    "RegisterToTemplateDict",
    "RegisterToTemplated",
    "SkullStrip",
    "SkullStripD",
    "SkullStripDict",
    "SkullStripd",
    "UntrackedCompose",
    "WorldBox",
    "WorldBoxD",
    "WorldBoxDict",
    "WorldBoxd",
    "forgotten_cluster",
    "scanner_augmentation",
]
