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

"""Panels of images with the saliency laid over them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from monai.utils import optional_import

from .figure import save_figure

plt, _ = optional_import("matplotlib.pyplot")

__all__ = ["SaliencyPanel", "plot_saliency"]

SaliencyPanel = tuple[str, np.ndarray, np.ndarray, np.ndarray | None]
"""Caption, image (H, W) of 0 to 1, saliency (H, W), and true region (H, W), boolean, or None where it is not known."""


def plot_saliency(rows: Sequence[tuple[str, Sequence[SaliencyPanel]]], path: str | Path, title: str = "") -> Path:
    """
    Images in rows, such as one for each site, as Figure 5 of https://arxiv.org/abs/2202.11783 has them: the saliency in
    colour, each on its own scale from 0 to its largest value, and the true region, where known, as a white line.

    Args:
        rows: name and panels of each row.
        path: file to write.
        title: of the figure.

    Returns:
        the file.
    """
    columns = max(len(panels) for _, panels in rows)
    size = (2.1 * columns + 0.3, 2.4 * len(rows))
    figure, axes = plt.subplots(len(rows), columns, figsize=size, layout="constrained", squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for line, (name, panels) in zip(axes, rows):
        line[0].set_ylabel(name, fontsize=9)
        for axis, (caption, image, saliency, roi) in zip(line, panels):
            axis.imshow(image, cmap="gray", vmin=0, vmax=1.1)
            positive = np.clip(saliency, 0, None)
            if positive.any():
                positive = positive / positive.max()
                axis.imshow(positive, cmap="inferno", vmin=0, vmax=1, alpha=0.6 * positive)
            if roi is not None:
                axis.contour(roi, levels=[0.5], colors="white", linewidths=0.8)
            axis.set_title(caption, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10)
    return save_figure(figure, path)
