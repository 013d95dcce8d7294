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


"""Figures of the cell study: reconstructions as if from any batch (Fig. 6), latents, learned effects by layer."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from monai.utils import optional_import
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from monai_armed.visualize.figure import save_figure

if TYPE_CHECKING:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
else:
    matplotlib, _ = optional_import("matplotlib")
    Figure, _ = optional_import("matplotlib.figure", name="Figure")

__all__ = ["plot_latents", "plot_recon_scales", "plot_reconstructions"]

MOST_PANELS = 24  # in a row or column
MOST_NAMES = 32  # in a legend
EFFECT_COLORS = {"scale": "tab:blue", "bias": "tab:orange"}


def plot_reconstructions(
    images: Mapping[str, np.ndarray],
    path: str | Path | None = None,
    truth: Mapping[str, np.ndarray] | None = None,
    names: Sequence[str] | None = None,
) -> Figure:
    """
    A row for each cell, a column for each kind of image, such as the real one, the reconstruction by fixed effects,
    and those as if from each batch (Fig. 6 of https://arxiv.org/abs/2202.11783). Of more than 24 columns or rows the
    first are drawn, with a warning.

    Args:
        images: by title of the column, images (N, H, W), 0 (black) to 1 (white).
        path: file to write, if any.
        truth: what columns of the same titles ought to show, (N, H, W), drawn in a row below each cell's.
        names: of the cells.

    Returns:
        the figure.

    Raises:
        ValueError: when a shape differs from the others, there is no image, or a truth has no column.
    """
    arrays = {title: np.asarray(array) for title, array in images.items()}
    truths = {title: np.asarray(array) for title, array in (truth or {}).items()}
    if unknown := [title for title in truths if title not in arrays]:
        raise ValueError(f"there are truths for {unknown}, but only columns {list(arrays)}.")
    shapes = {array.shape for array in (*arrays.values(), *truths.values())}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 3 or not shape[0]:
        raise ValueError(f"every entry must be images of one shape (N, H, W), got {_shapes(arrays, truths)}.")
    names = [f"cell {i + 1}" for i in range(shape[0])] if names is None else names
    if len(names) != shape[0]:
        raise ValueError(f"there are {shape[0]} cells, but {len(names)} names.")
    if len(arrays) > MOST_PANELS or len(names) > MOST_PANELS:
        warnings.warn(
            f"{len(arrays)} columns of {len(names)} cells are more than a picture can show: the first {MOST_PANELS} of "
            "each are drawn.",
            stacklevel=2,
        )
        arrays, names = dict(list(arrays.items())[:MOST_PANELS]), names[:MOST_PANELS]
    lines = [(arrays, i, name) for i, name in enumerate(names)]
    if truths:
        lines = [line for i, name in enumerate(names) for line in ((arrays, i, name), (truths, i, "truth"))]
    figure = Figure(figsize=(1.3 * len(arrays) + 0.4, 1.3 * len(lines) + 0.4), layout="constrained")
    axes = figure.subplots(len(lines), len(arrays), squeeze=False)
    for row, (source, i, name) in zip(axes, lines):
        for axis, title in zip(row, arrays):
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if title in source:
                axis.imshow(source[title][i], cmap="gray", vmin=0, vmax=1)
        row[0].set_ylabel(name, fontsize=8)
    for axis, title in zip(axes[0], arrays):
        axis.set_title(title, fontsize=8)
    return _saved(figure, path)


def _shapes(*entries: Mapping[str, np.ndarray]) -> str:
    return ", ".join(f"{title!r} {array.shape}" for arrays in entries for title, array in arrays.items()) or "none"


def plot_latents(
    latents: Mapping[str, np.ndarray],
    batch: np.ndarray,
    label: np.ndarray,
    names: Sequence[str] | None = None,
    path: str | Path | None = None,
) -> Figure:
    """
    First two principal components of each model's standardised latents, a column for each model, coloured by batch
    (above) and by phenotype (below). The legend names up to 32 batches; of more it says how many there are.

    Args:
        latents: by model, (N, F) with F at least 2, of the same cells.
        batch: index (N,) of each cell's batch; -1 where not known, drawn in grey.
        label: phenotype (N,) of each cell, numbers or names.
        names: of the batches, by index.
        path: file to write, if any.

    Returns:
        the figure.

    Raises:
        ValueError: when the lengths differ, there is no model, or a model has fewer than two features.
    """
    batch, label = np.asarray(batch), np.asarray(label)
    if not latents:
        raise ValueError("latents has no model: there is nothing to draw.")
    points = {model: _components(model, np.asarray(x), batch, label) for model, x in latents.items()}
    names = [str(j) for j in range(batch.max() + 1)] if names is None else names
    batches = np.array([names[j] if j >= 0 else "unknown" for j in batch])
    order = [
        *dict.fromkeys(names[j] for j in np.unique(batch[batch >= 0])),
        *(["unknown"] if (batch < 0).any() else []),
    ]
    figure = Figure(figsize=(2.6 * len(points) + 1.8, 5.2), layout="constrained")
    axes = figure.subplots(2, len(points), squeeze=False)
    for column, (model, (xy, variance)) in enumerate(points.items()):
        axes[0, column].set_title(model, fontsize=10)
        _scatter(axes[0, column], xy, batches, order, "turbo")
        _scatter(axes[1, column], xy, label, list(np.unique(label)), "Set1")
        for axis in axes[:, column]:
            axis.set(xticks=[], yticks=[])
            axis.set_xlabel(f"PC 1 ({variance[0]:.0%})", fontsize=8)
            axis.set_ylabel(f"PC 2 ({variance[1]:.0%})", fontsize=8)
    for row, title in zip(axes, ("batch", "phenotype")):
        _legend(row[-1], title)
    return _saved(figure, path)


def _legend(axis: Axes, title: str) -> None:
    handles, names = axis.get_legend_handles_labels()
    if len(names) > MOST_NAMES:
        handles, title = [], f"{title}: {len(names)},\nby colour"
    axis.legend(
        handles=handles,
        title=title,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        ncols=1 + len(handles) // 17,
        frameon=False,
        fontsize=7,
        title_fontsize=8,
    )


def _components(model: str, x: np.ndarray, batch: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if x.ndim != 2 or x.shape[1] < 2 or not len(x) == len(batch) == len(label):
        raise ValueError(
            f"latents of {model!r} have the shape {x.shape}, batch has {batch.shape} and label {label.shape}: they "
            "must be (N, F) with two features or more, (N,) and (N,)."
        )
    pca = PCA(2, svd_solver="full")
    return pca.fit_transform(StandardScaler().fit_transform(x)), pca.explained_variance_ratio_


def _scatter(axis: Axes, xy: np.ndarray, group: np.ndarray, groups: Sequence[Any], colormap: str) -> None:
    """Points in random order, so that no group hides the others, with an entry for the legend for each group."""
    known = [g for g in groups if g != "unknown"]
    by_group = dict(zip(known, _colors(colormap, len(known)))) | {"unknown": np.array([0.6, 0.6, 0.6, 1.0])}
    order = np.random.default_rng(0).permutation(len(xy))
    axis.scatter(xy[order, 0], xy[order, 1], s=6, c=[by_group[g] for g in group[order]], linewidths=0)
    for g in groups:
        axis.scatter([], [], s=14, color=[by_group[g]], label=str(g))


def _colors(colormap: str, number: int) -> np.ndarray:
    colors = matplotlib.colormaps[colormap]
    return colors(np.arange(number)) if number <= colors.N < 20 else colors(np.linspace(0.03, 0.97, number))


def plot_recon_scales(frame: pd.DataFrame, path: str | Path | None = None) -> Figure:
    """
    Learned s.d. of the random effects of :py:class:`monai_armed.networks.blocks.RECON` layers: where in the network
    the batches differ.

    Args:
        frame: ``layer``, in the network's order, ``effect`` (``"scale"`` or ``"bias"``) and ``sd``; of several rows
            of a layer and effect, such as seeds, the mean is drawn.
        path: file to write, if any.

    Returns:
        the figure.

    Raises:
        ValueError: when the frame is empty or has another effect.
    """
    if frame.empty or not set(frame["effect"]) <= set(EFFECT_COLORS):
        raise ValueError(
            f"frame must have rows with the effects {list(EFFECT_COLORS)}, got {sorted(set(frame['effect']))}."
        )
    table = frame.pivot_table(index="layer", columns="effect", values="sd", aggfunc="mean", sort=False)
    figure = Figure(figsize=(0.5 * len(table) + 2.5, 3.2), layout="constrained")
    axis = figure.subplots()
    place, width = np.arange(len(table)), 0.8 / len(table.columns)
    for i, effect in enumerate(e for e in EFFECT_COLORS if e in table):
        offset = (i - (len(table.columns) - 1) / 2) * width
        axis.bar(place + offset, table[effect], width, color=EFFECT_COLORS[effect], label=effect)
    axis.set_xticks(place, table.index, rotation=45, ha="right", fontsize=8)
    axis.set_ylabel("learned s.d. over batches")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    return _saved(figure, path)


def _saved(figure: Figure, path: str | Path | None) -> Figure:
    if path is not None:
        save_figure(figure, path)
    return figure
