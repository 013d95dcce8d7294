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

"""Folders of cells without content, for the tests of the reader and of the partitions."""

from __future__ import annotations

import pandas as pd

NAME = "{batch}_{pdx}_s02_t184_x{x}_y527_t308_t7Ready_f{frame:05d}.png"


def named_folder(folder, cells, frames=2):
    """Empty files for cells given as (batch, pdx)."""
    folder.mkdir(parents=True, exist_ok=True)
    for x, (batch, pdx) in enumerate(cells):
        for frame in range(frames):
            (folder / NAME.format(batch=batch, pdx=pdx, x=x, frame=frame)).touch()
    return folder


def csv_folder(folder, rows, name="cells.csv"):
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        (folder / row["file"]).touch()
    pd.DataFrame(rows).to_csv(folder / name, index=False)
    return folder


def study_rows(cells_per_batch=20, batches=4, frames=3, seen=3):
    return [
        {"file": f"{b}_{c}_{f}.png", "batch": f"b{b}", "pdx": f"p{c % 2}", "cell": f"{b}_{c}", "frame": f}
        | {"label": c % 2, "seen": b < seen}
        for b in range(batches)
        for c in range(cells_per_batch)
        for f in range(frames)
    ]
