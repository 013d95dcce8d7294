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

"""A picture of what each model gives for its leak: AUROC within a source, on seen sources, on the one left out."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D

__all__ = ["draw_trade_off"]

MARKERS = "osD^vP*X"
PANELS = {"within source": "within source", "seen": "seen, mixed where there is one", "unseen": "source left out"}


def draw_trade_off(results: pd.DataFrame, path: Path) -> None:
    """
    Draw AUROC against the leak, means over seeds: a colour a model, filled where it is ARMED's, a marker a source that
    was left out.

    Args:
        results: ``model``, ``left out``, ``seed``, and the scores.
        path: of the picture.
    """
    table = results.assign(seen=results["seen mixed"].fillna(results["seen fixed"]))
    means = table.groupby(["model", "left out"], sort=False)[["leak", *PANELS]].mean().reset_index()
    colour = {model: plt.get_cmap("tab20")(k % 20) for k, model in enumerate(means["model"].unique())}
    marker = {source: MARKERS[k % len(MARKERS)] for k, source in enumerate(sorted(means["left out"].unique()))}
    filled_by = {model: own if "ARMED" in model else "none" for model, own in colour.items()}
    figure, axes = plt.subplots(1, len(PANELS), figsize=(13, 4.2), sharex=True, layout="constrained")
    for axis, (score, title) in zip(axes, PANELS.items()):
        for row in means.to_dict("records"):
            look = {"facecolor": filled_by[row["model"]], "edgecolor": colour[row["model"]], "s": 45}
            axis.scatter(row["leak"], row[score], marker=marker[row["left out"]], **look)
        axis.axvline(0.5, color="grey", linewidth=0.8)
        axis.set(title=title, xlabel="leak (AUROC of the source)", ylabel="AUROC")
    handles = [
        Line2D([], [], marker="o", linestyle="", color=own, markerfacecolor=filled_by[model], label=model)
        for model, own in colour.items()
    ]
    handles += [
        Line2D([], [], marker=sign, linestyle="", color="black", markerfacecolor="none", label=f"{source} left out")
        for source, sign in marker.items()
    ]
    figure.legend(handles=handles, loc="outside right upper", fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)
