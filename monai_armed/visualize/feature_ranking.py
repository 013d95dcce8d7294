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

"""Bars of feature importance, a panel a model (Figures 4 and S6)."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pandas as pd
from monai.utils import optional_import

from .figure import save_figure

plt, _ = optional_import("matplotlib.pyplot")

__all__ = ["plot_feature_ranking"]


def plot_feature_ranking(
    importance: pd.DataFrame, path: str | Path, top: int | None = None, marked: Collection[str] = ()
) -> Path:
    """
    The most important features of each model, in descending order, with their s.d. over folds.

    Args:
        importance: ``model``, ``feature``, ``importance``, a row for each fold.
        path: file to write.
        top: number of features to show; None: all.
        marked: features in another colour, such as confounded probes.

    Returns:
        the file.
    """
    models = list(dict.fromkeys(importance["model"]))
    size = importance["feature"].nunique() if top is None else top
    columns = min(3, len(models))
    rows = -(-len(models) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.6 * columns, rows * (0.19 * size + 0.9)), layout="constrained", squeeze=False
    )
    for axis in axes.flat[len(models) :]:
        axis.set_visible(False)
    for axis, model in zip(axes.flat, models):
        values = importance[importance["model"] == model].groupby("feature")["importance"]
        mean = values.mean().sort_values(ascending=False).head(size)[::-1]
        colours = ["tab:red" if name in marked else "tab:blue" for name in mean.index]
        axis.barh(mean.index, mean, xerr=values.std().reindex(mean.index).fillna(0), color=colours, ecolor="0.5")
        axis.set_title(model, fontsize=10)
        axis.tick_params(axis="y", labelsize=7)
        axis.margins(y=0.01)
    figure.supxlabel("importance, fixed effects", fontsize=10)
    return save_figure(figure, path)
