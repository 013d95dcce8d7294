# Copyright (c) the monai_armed authors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and

"""Contact sheets of slices, so that bad scans are seen."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from monai.utils import optional_import

from monai_armed.data.volume_reader import volume_stem
from monai_armed.studies.ad_mri.scan_check import STATUSES
from monai_armed.visualize.figure import save_figure

plt, _ = optional_import("matplotlib.pyplot")

__all__ = ["plot_quality_sheets"]

COLUMNS, ROWS = 8, 5
COLORS = dict(zip(STATUSES, ("tab:red", "tab:purple", "tab:orange", "black"), strict=True))


def plot_quality_sheets(
    table: pd.DataFrame, slices: Sequence[Path], point: tuple[float, float], folder: str | Path
) -> list[Path]:
    """
    Slices of all scans with the point marked, on as many pages as they need: by their status, the worst first, those
    with remarks before those without, and then by their similarity with the template, the least similar first.

    Args:
        table: ``scan``, ``status``, ``remarks``, ``similarity`` and ``brain_volume_ml`` of each scan.
        slices: picture of each scan; a frame stays empty where there is none.
        point: row and column of the point, in pixels.
        folder: where to write ``quality_1.png``, ``quality_2.png`` and so on; those there are replaced.

    Returns:
        the files.
    """
    for old in Path(folder).glob("quality_*.png"):
        old.unlink()
    order = table.assign(
        rank=table["status"].map(STATUSES.index),
        clean=table["remarks"] == "",
        similarity=pd.to_numeric(table["similarity"]),
        slice=np.asarray(slices, dtype=object),
    ).sort_values(["rank", "clean", "similarity"], na_position="first")
    size = COLUMNS * ROWS
    pages = [order.iloc[start : start + size] for start in range(0, len(order), size)]
    return [_page(rows, point, Path(folder) / f"quality_{number}.png") for number, rows in enumerate(pages, start=1)]


def _page(rows: pd.DataFrame, point: tuple[float, float], path: Path) -> Path:
    height = -(-len(rows) // COLUMNS)
    width = min(COLUMNS, max(3, len(rows)))  # three leave room for the title
    figure, axes = plt.subplots(height, width, figsize=(2 * width, 2.7 * height), layout="constrained", squeeze=False)
    for axis in axes.flat[len(rows) :]:
        axis.axis("off")
    columns = (rows[name] for name in ("scan", "status", "remarks", "similarity", "brain_volume_ml", "slice"))
    for axis, scan, status, remarks, similarity, volume, picture in zip(axes.flat, *columns):
        axis.set_xticks([])
        axis.set_yticks([])
        lines = [volume_stem(Path(scan).name).removesuffix("_T1w")]
        lines += [] if pd.isna(similarity) else [f"{similarity:.2f}, {volume:.0f} ml"]
        lines += [] if status == "ok" else [status]
        lines += [line for remark in remarks.split("; ") for line in textwrap.wrap(remark, 36)]
        axis.set_title("\n".join(lines), fontsize=7, color=COLORS[status])
        axis.spines[:].set_color(COLORS[status])
        if picture.is_file():
            axis.imshow(plt.imread(picture), cmap="gray", vmin=0, vmax=1)
            axis.plot(point[1], point[0], "+", color="tab:red", markersize=7)
    figure.suptitle("Similarity with the template and brain volume of each scan; + is the point", fontsize=9)
    return save_figure(figure, path)
