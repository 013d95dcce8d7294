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


"""Pictures of a mixed effects network, from the frames of :py:mod:`monai_armed.metrics.mixed_model`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from monai.utils import optional_import

from .figure import save_figure

plt, _ = optional_import("matplotlib.pyplot")

__all__ = ["plot_caterpillar", "plot_intercept_balance", "plot_shrinkage", "plot_slope_scale"]


def plot_caterpillar(effects: pd.DataFrame, path: str | Path, title: str = "random intercept") -> Path:
    """
    Caterpillar plot: one random effect of every cluster with its 95 % credible interval, in order of its mean.

    Args:
        effects: index the clusters' names; ``mean``, ``low``, ``high``, and, if there is one, ``note``, shown beside
            the name. Such as the rows of one effect (of one factor) of
            :py:func:`monai_armed.metrics.mixed_model.ranef`, with ``set_index("cluster")``.
        path: file to write.
        title: name of the effect.

    Returns:
        the file.
    """
    effects = effects.sort_values("mean")
    figure, axis = plt.subplots(figsize=(6, 0.3 * len(effects) + 1.2), layout="constrained")
    places = np.arange(len(effects))
    errors = [effects["mean"] - effects["low"], effects["high"] - effects["mean"]]
    axis.errorbar(effects["mean"], places, xerr=errors, fmt="o", color="tab:orange", ecolor="0.5", capsize=2)
    axis.axvline(0, color="k", linewidth=0.8)
    notes = effects["note"] if "note" in effects else [""] * len(effects)
    axis.set_yticks(places, [f"{name}  {note}".rstrip() for name, note in zip(effects.index, notes)], fontsize=8)
    axis.set_xlabel(f"{title} (posterior mean, 95 % credible interval)")
    return save_figure(figure, path)


def plot_slope_scale(features: pd.DataFrame, path: str | Path) -> Path:
    """
    Importance of each feature in the fixed part beside the s.d. of its random slope: what counts everywhere, and what
    counts differently from cluster to cluster (Fig. 3 of https://arxiv.org/abs/2202.11783).

    Args:
        features: index the features' names; ``importance``, such as
            :py:func:`monai_armed.metrics.feature_importance.mean_absolute_gradient` gives it, and ``sd`` of the linear
            slope, from :py:func:`monai_armed.metrics.mixed_model.VarCorr`; for several folds each feature comes
            several times and its s.d. over the folds is drawn as an error bar.
        path: file to write.

    Returns:
        the file.
    """
    values = features[["importance", "sd"]].groupby(level=0)
    mean, spread = values.mean().sort_values("importance"), values.std()
    figure, axes = plt.subplots(1, 2, figsize=(8, 0.22 * len(mean) + 1.2), layout="constrained", sharey=True)
    titles = {"importance": ("tab:blue", "importance, fixed effects"), "sd": ("tab:orange", "random slope, s.d.")}
    for axis, (name, (colour, title)) in zip(axes, titles.items()):
        errors = spread.loc[mean.index, name].to_numpy()
        axis.barh(mean.index.astype(str), mean[name], xerr=None if np.isnan(errors).all() else errors, color=colour)
        axis.set_xlabel(title)
    axes[0].tick_params(axis="y", labelsize=8)
    axes[0].margins(y=0.01)
    return save_figure(figure, path)


def plot_intercept_balance(effects: pd.DataFrame, balance: pd.Series, path: str | Path) -> Path:
    """
    Random intercept of each cluster against the share of class 1 among its training samples, with Pearson's r, which
    the paper reports as .860 for conversion of mild cognitive impairment (Section 3.2).

    Args:
        effects: the intercepts as for :py:func:`plot_caterpillar`.
        balance: share of class 1 by the clusters' names, between 0 and 1.
        path: file to write.

    Returns:
        the file.

    Raises:
        ValueError: when a cluster has no share.
    """
    share = balance.reindex(effects.index)
    if share.isna().any():
        raise ValueError(f"no class balance is given for {list(share.index[share.isna()])[:3]}.")
    figure, axis = plt.subplots(figsize=(4.6, 4), layout="constrained")
    errors = [effects["mean"] - effects["low"], effects["high"] - effects["mean"]]
    axis.errorbar(100 * share, effects["mean"], yerr=errors, fmt="o", color="tab:orange", ecolor="0.75")
    axis.axhline(0, color="k", linewidth=0.8)
    r = np.corrcoef(share, effects["mean"])[0, 1]
    axis.set(xlabel="class 1 in training, % of the cluster", ylabel="random intercept, logits")
    axis.set_title(f"{len(share)} clusters, Pearson's r = {r:.2f}", fontsize=10)
    return save_figure(figure, path)


def plot_shrinkage(effects: pd.DataFrame, alone: pd.DataFrame, path: str | Path, title: str = "random effect") -> Path:
    """
    Shrinkage picture: what each cluster's own samples say of an effect, and what becomes of it when the clusters share
    a prior. Clusters of few samples move furthest towards zero, the population.

    Args:
        effects: as for :py:func:`plot_caterpillar`.
        alone: index the clusters' names; ``estimate`` from the cluster's samples alone, as a deviation from the fixed
            effect, and ``samples``, their number.
        path: file to write.
        title: name of the effect.

    Returns:
        the file.

    Raises:
        ValueError: when a cluster has no estimate of its own.
    """
    alone = alone.reindex(effects.index)
    if alone["estimate"].isna().any():
        raise ValueError(f"no own estimate is given for {list(alone.index[alone['estimate'].isna()])[:3]}.")
    figure, axis = plt.subplots(figsize=(5, 4.5), layout="constrained")
    samples = alone["samples"].to_numpy(float)
    norm = plt.matplotlib.colors.LogNorm(samples.min(), max(samples.max(), samples.min() + 1))
    colours = plt.matplotlib.colormaps["viridis"](norm(samples))
    for own, shrunk, colour in zip(alone["estimate"], effects["mean"], colours):
        axis.plot([0, 1], [own, shrunk], "o-", color=colour, linewidth=1, markersize=4)
    axis.axhline(0, color="k", linewidth=0.8)
    axis.set_xticks([0, 1], ["the cluster's\nsamples alone", "posterior mean,\nall clusters"])
    axis.set(xlim=(-0.2, 1.2), ylabel=title)
    bar = figure.colorbar(plt.matplotlib.cm.ScalarMappable(norm, "viridis"), ax=axis, label="samples of the cluster")
    for which in ("major", "minor"):
        getattr(bar.ax.yaxis, f"set_{which}_formatter")("{x:g}")
    return save_figure(figure, path)
