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
from collections.abc import Collection, Mapping
from typing import Any

from monai_armed.studies.cells.cohort import draw_cells

__all__ = ["cell_batches"]


def cell_batches(
    dataset_dir: str | os.PathLike[str],
    simulate: Mapping[str, Any] | None = None,
    seen_batches: Collection[str] | None = None,
    reading: Mapping[str, Any] | None = None,
) -> list[str]:
    """
    Names of the seen batches in the order of their index, as :py:func:`monai_armed.studies.cells.cell_partitions` has
    them, but without a single image: whoever wants the network alone need not wait for a simulation.

    Args:
        dataset_dir: folder or CSV file of cell images.
        simulate: given where the folder is to be filled with the simulated study.
        seen_batches: names of the seen batches, if the user gives them.
        reading: how the table is read, see :py:func:`monai_armed.studies.cells.cell_partitions`.

    Returns:
        the names.
    """
    if simulate is None:
        from monai_armed.studies.cells import cell_partitions

        return list(cell_partitions(dataset_dir, seen_batches=seen_batches, reading=reading)["batches"])
    if seen_batches is not None:
        return sorted(map(str, seen_batches))
    return sorted({cell.batch for cell in draw_cells(simulate.get("seed", 0), 2, 1) if cell.seen})
