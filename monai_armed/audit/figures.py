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
"""Figures of an audit as SVG, to be put into its page."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from monai.utils import optional_import

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure, _ = optional_import("matplotlib.figure", name="Figure")

rc_context, has_matplotlib = optional_import("matplotlib", name="rc_context")

__all__ = ["audit_figures", "has_matplotlib"]

OURS, OTHER, CHANCE = "#1f5fa8", "#d9822b", "0.55"
MOST_SITES = 40
LONGEST = 48


def audit_figures(tables: dict[str, pd.DataFrame]) -> dict[str, str]:
    """
    Args:
        tables: of an audit.

    Returns:
        SVG text by the name of the table that it shows; nothing without matplotlib.
    """
    drawn = {"sites": _sites, "levels": _scores, "probes": _probes, "erased": _erased}
    if not has_matplotlib:
        return {}
    with rc_context({"svg.hashsalt": "audit", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        return {name: _svg(draw(tables)) for name, draw in drawn.items() if name in tables}


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def _axis(rows: int, width: float = 6.5) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, 0.9 + 0.24 * rows), layout="constrained")
    axis = figure.subplots()
    axis.grid(axis="x", color="0.92")
    axis.set_ylim(rows - 0.5, -0.5)
    return figure, axis


def _plain(names: Any) -> list[str]:
    """Names of a user's data, in which a dollar sign begins no formula, cut where they are long."""
    return [
        (name if len(name) <= LONGEST else name[: LONGEST - 1] + "…").replace("$", r"\$") for name in map(str, names)
    ]


def _sites(tables: dict[str, pd.DataFrame]) -> Figure:
    name = "auroc" if "auroc" in tables["sites"] else "dice"
    each = tables["sites"].iloc[1:].dropna(subset=[name]).sort_values(name)
    table = pd.concat([tables["sites"].iloc[:1], each.head(MOST_SITES)])
    figure, axis = _axis(len(table))
    at = np.arange(len(table))
    colours = ["0.2", *[OURS] * (len(table) - 1)]
    axis.hlines(at, table["low"], table["high"], colors=colours)
    axis.scatter(table[name], at, c=colours, zorder=3, s=22)
    axis.set_yticks(at, _plain(table["site"]))
    axis.set_xlabel({"auroc": "AUROC", "dice": "Dice"}[name] + ", 95 % interval" + _cut(each))
    return figure


def _cut(sites: pd.DataFrame) -> str:
    return f" (the worst {MOST_SITES} of {len(sites)} sites)" if len(sites) > MOST_SITES else ""


def _scores(tables: dict[str, pd.DataFrame]) -> Figure:
    predictions = tables["predictions"]
    label = predictions["label"]
    masks = label.dtype == object
    kept = predictions[label == 0] if not masks else predictions
    sites = list(pd.unique(kept.sort_values("site")["site"]))[:MOST_SITES]
    figure, axis = _axis(len(sites))
    parts = [kept.loc[kept["site"] == site, "score"] for site in sites]
    box = axis.boxplot(
        parts, positions=range(len(sites)), orientation="horizontal", showfliers=False, patch_artist=True
    )
    for patch in box["boxes"]:
        patch.set(facecolor="#c9daf0", edgecolor=OURS)
    for median in box["medians"]:
        median.set(color=OTHER, linewidth=2)
    axis.set_yticks(range(len(sites)), _plain(sites))
    axis.set_xlabel("log of predicted over true pixels" if masks else "logit of class 1, images of class 0")
    return figure


def _probes(tables: dict[str, pd.DataFrame]) -> Figure:
    table = tables["probes"]
    figure, axis = _axis(len(table), 7.5)
    at = np.arange(len(table))
    axis.hlines(at, table["chance"], table["chance_high"], colors=CHANCE, linewidth=5, label="chance, to its 95 %")
    found = table["p_adjusted"] < 0.05
    for chosen, colour, text in ((found, OTHER, "beyond chance"), (~found, OURS, "not beyond chance")):
        if chosen.any():
            axis.scatter(table["balanced_accuracy"][chosen], at[chosen], color=colour, label=text, zorder=3, s=22)
    axis.set_yticks(at, _plain(f"{r['layer']}, class {r['class']}, {r['probe']}" for r in table.to_dict("records")))
    axis.set_xlabel("balanced accuracy of naming the site")
    figure.legend(loc="outside upper right", ncols=3, frameon=False)
    return figure


def _erased(tables: dict[str, pd.DataFrame]) -> Figure:
    table = tables["erased"]
    figure, axis = _axis(len(table))
    at = np.arange(len(table))
    axis.hlines(at, table["leak_erased"], table["leak"], colors="0.8", linewidth=3)
    axis.scatter(table["leak"], at, color=OTHER, label="as it is", zorder=3, s=22)
    axis.scatter(table["leak_erased"], at, color=OURS, label="erased", zorder=3, s=22)
    axis.set_yticks(at, _plain(table["layer"]))
    axis.set_xlabel("leak of the site")
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return figure
