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


"""Figures of the AD study, from real results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from monai.utils import optional_import

from monai_armed.visualize.figure import save_figure

plt, _ = optional_import("matplotlib.pyplot")

__all__ = ["plot_loss_terms", "plot_results", "plot_slices"]


def plot_slices(slices: Sequence[np.ndarray], titles: Sequence[str], path: str | Path, columns: int = 6) -> Path:
    """
    Panel of slices, as the network sees them.

    Args:
        slices: images (H, W), 0 to 1.
        titles: one for each.
        path: file to write.
        columns: images in a row.

    Returns:
        the file.
    """
    rows = -(-len(slices) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2 * columns, 2.25 * rows), layout="constrained", squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, title in zip(axes.flat, slices, titles):
        axis.imshow(image, cmap="gray", vmin=0, vmax=1.1)
        axis.set_title(title, fontsize=8)
    return save_figure(figure, path)


def plot_results(table: pd.DataFrame, lines: Mapping[str, Mapping[str, float]], path: str | Path) -> Path:
    """
    AUROC on seen and unseen sites beside what is possible, and the leak beside chance.

    Args:
        table: ``model``, ``prediction``, ``partition`` (seen, unseen), ``auroc``, ``leak``.
        lines: for ``"seen"``, ``"unseen"`` and ``"leak"``, reference values by name, drawn as lines.
        path: file to write.

    Returns:
        the file.
    """
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained", sharey=True)
    unseen = table[table["partition"] == "unseen"]
    panels: list[tuple[str, str, pd.DataFrame, str]] = [
        ("seen", "AUROC, test subjects of seen sites", table[table["partition"] == "seen"], "auroc"),
        ("unseen", "AUROC, unseen sites", unseen, "auroc"),
        ("leak", "leak: scanner maker among unseen controls", unseen, "leak"),
    ]
    for axis, (name, title, rows, column) in zip(axes, panels):
        names = [f"{m}, {p}" for m, p in zip(rows["model"], rows["prediction"])]
        colours = ["tab:blue" if "ARMED" in n else "0.4" for n in names]
        axis.hlines(names, 0.5, rows[column], color=colours, linewidth=3)
        axis.scatter(rows[column], names, color=colours, zorder=3)
        for (text, value), style in zip(lines.get(name, {}).items(), ("--", ":", "-.")):
            axis.axvline(value, color="k", linestyle=style, linewidth=1, label=f"{text} ({value:.2f})")
        axis.set_xlim(0.3, 1.0)
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.set_title(title, fontsize=9)
        axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, frameon=False)
    return save_figure(figure, path)


def plot_loss_terms(terms: pd.DataFrame, chance: float, path: str | Path) -> Path:
    """
    Loss terms over training, and the adversary's beside that of guessing.

    Args:
        terms: index the epoch; a column for each term.
        chance: the adversary's loss at chance, ln(C), in nats.
        path: file to write.

    Returns:
        the file.
    """
    figure, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
    for name in ("mixed", "fixed"):
        axes[0].plot(terms.index, terms[name], label=name)
    axes[0].set_title("prediction loss (training)", fontsize=9)
    axes[0].legend(fontsize=8)
    axes[1].plot(terms.index, terms["adversary"], color="0.4")
    axes[1].axhline(chance, color="k", linestyle=":")
    axes[1].text(terms.index[0], chance, "ln(C): no idea of the site", fontsize=8, va="top")
    axes[1].set_title("adversary's loss, nats", fontsize=9)
    axes[2].plot(terms.index, terms["kl"], color="tab:orange")
    axes[2].set_title("KL of the random effects, nats", fontsize=9)
    for axis in axes:
        axis.set_xlabel("epoch")
    return save_figure(figure, path)
