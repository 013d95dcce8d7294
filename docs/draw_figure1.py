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
"""Draw ``figures/armed.png`` and ``.svg``: the parts of an ARMED network, our drawing of the paper's Fig. 1.

Run ``python docs/draw_figure1.py``; it needs matplotlib.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

BLUE, GREY, ORANGE, GREEN, INK = "#2f6db3", "#6b7280", "#d9791a", "#2f8f6b", "#1f2937"
PALE = {BLUE: "#e4eefa", GREY: "#eceef1", ORANGE: "#fdeedd", GREEN: "#e2f4ec", INK: "#ffffff"}
Point = tuple[float, float]


def box(ax: Axes, corner: Point, size: Point, color: str, text: str = "", filled: bool = False, fontsize: float = 12.5):
    """A rounded box with its text in the middle; ``filled`` is for a part that computes, pale for an area."""
    style = "round,pad=0,rounding_size=1.1"
    face = color if filled else PALE[color]
    ax.add_patch(FancyBboxPatch(corner, *size, boxstyle=style, facecolor=face, edgecolor=color, linewidth=1.6))
    middle = (corner[0] + size[0] / 2, corner[1] + size[1] / 2)
    ax.text(*middle, text, ha="center", va="center", fontsize=fontsize, color="white" if filled else INK)


def arrow(ax: Axes, start: Point, end: Point, color: str = INK, dashed: bool = False):
    """An arrow from ``start`` to ``end``; dashed for a way that only samples of unknown clusters take."""
    ax.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=14,
            linewidth=1.7,
            color=color,
            linestyle=(0, (3, 2)) if dashed else "-",
            shrinkA=0,
            shrinkB=0,
        )
    )


def title(ax: Axes, at: Point, color: str, text: str, ha: str = "left"):
    ax.text(*at, text, fontsize=13.5, fontweight="bold", color=color, ha=ha, va="center")


def draw_network(ax: Axes):
    """The wrapped network (blue) from the data to the fixed prediction."""
    box(ax, (13, 30), (56, 21), BLUE)
    title(ax, (14.5, 32.3), BLUE, "Your network: fixed effects")
    box(ax, (2, 36), (7.5, 11), INK, "data\n$X$")
    arrow(ax, (9.5, 41.5), (16, 41.5))
    for x, height, name in ((16, 13, "$h_1$"), (26, 11, "$h_2$"), (41, 9, "$h_L$")):
        box(ax, (x, 41.5 - height / 2), (5, height), BLUE, name, filled=True, fontsize=15)
    arrow(ax, (21, 41.5), (26, 41.5), BLUE)
    ax.text(36, 41.3, "$\\cdots$", fontsize=16, color=BLUE, ha="center", va="center")
    arrow(ax, (31, 41.5), (34, 41.5), BLUE)
    arrow(ax, (38, 41.5), (41, 41.5), BLUE)
    arrow(ax, (46, 41.5), (57, 41.5), BLUE)
    ax.text(51.3, 43.4, "latent $h_F$", fontsize=12, color=INK, ha="center")
    box(ax, (57, 38), (8, 7), BLUE, "head $o$", filled=True)
    arrow(ax, (65, 41.5), (83, 41.5), BLUE)
    box(ax, (83, 37), (15, 9), BLUE, "$\\hat{y}_F$\nfixed prediction")


def draw_adversary(ax: Axes):
    """The adversary (grey): it sees every layer through the gradient reversal."""
    box(ax, (13, 54.5), (56, 17.5), GREY)
    title(ax, (14.5, 70), GREY, "Adversary: leaves no cluster in the features")
    reversal = "gradient reversal: forward $\\times 1$, backward $\\times\\,(-\\lambda_g)$"
    box(ax, (15.5, 56.3), (51, 4.8), INK, reversal)
    for x, top in ((18.5, 48), (28.5, 47), (43.5, 46)):
        arrow(ax, (x, top), (x, 56.3), GREY)
    box(ax, (27, 63), (28, 4.8), GREY, "adversarial classifier $a$", filled=True)
    arrow(ax, (41, 61.1), (41, 63), GREY)
    arrow(ax, (55, 65.4), (83, 65.4), GREY)
    box(ax, (83, 61), (15, 9), GREY, "$\\hat{Z}$\nguessed cluster")


def draw_random_effects(ax: Axes):
    """The random effects (orange): a normal distribution a cluster, applied as slopes and intercept."""
    box(ax, (13, 3), (56, 23.5), ORANGE)
    title(ax, (14.5, 5.3), ORANGE, "Random effects: what the cluster tells, learned apart")
    box(ax, (15.5, 9.5), (17, 12.5), INK)
    ax.text(24, 19.9, "$u(z)\\sim N(0,\\Sigma)$", fontsize=13, color=INK, ha="center", va="center")
    grid = np.linspace(-1, 1, 80)
    for mean, deviation, shade in ((-0.45, 0.13, "#b45309"), (0.02, 0.2, "#f59e0b"), (0.48, 0.15, "#fbbf24")):
        ax.plot(24 + 7 * grid, 10.8 + np.exp(-0.5 * ((grid - mean) / deviation) ** 2) / deviation, color=shade, lw=2)
    ax.plot([17, 31], [10.8, 10.8], color=INK, lw=0.9)
    for y, text in ((20, "slopes  $u\\times h_F$"), (14.5, "linear slopes  $u\\times x$"), (9, "intercept  $u$")):
        box(ax, (38, y), (20, 4.3), ORANGE, text, filled=True)
        arrow(ax, (32.5, 15.75), (38, y + 2.15), ORANGE)
        arrow(ax, (58, y + 2.15), (61.9, 16.65 + (y - 14.5) / 8), ORANGE)
    ax.add_patch(Circle((63.7, 16.65), 1.6, facecolor=ORANGE, edgecolor=ORANGE))
    ax.text(63.7, 16.55, "+", color="white", fontsize=15, ha="center", va="center")
    ax.text(65.7, 19.3, "$h_R$", fontsize=13.5, color=INK, ha="left", va="center")
    arrow(ax, (51.5, 41.3), (51.5, 24.3), BLUE)


def draw_mixing(ax: Axes):
    box(ax, (73.5, 13.2), (6.5, 7), INK, "mix\n$m$")
    arrow(ax, (65.3, 16.65), (73.5, 16.65), ORANGE)
    arrow(ax, (76.75, 41.5), (76.75, 20.2), BLUE)
    arrow(ax, (80, 16.65), (83, 16.65))
    box(ax, (83, 12.2), (15, 9), INK, "$\\hat{y}_M$\nmixed prediction")


def draw_cluster(ax: Axes):
    """The cluster Z, known or inferred by the Z-predictor (green)."""
    box(ax, (2, 10.25), (7.5, 11), INK)
    ax.text(5.75, 18.6, "cluster\n$Z$", fontsize=12.5, color=INK, ha="center", va="center", linespacing=1.05)
    for i in range(4):
        face = ORANGE if i == 1 else "white"
        ax.add_patch(Circle((3.4 + 1.58 * i, 12.6), 0.62, facecolor=face, edgecolor=ORANGE, linewidth=1.3))
    arrow(ax, (9.5, 15.75), (15.5, 15.75), ORANGE)
    box(ax, (0.6, 26.6), (10.3, 5), GREEN, "Z-predictor", filled=True, fontsize=11.5)
    arrow(ax, (5.75, 36), (5.75, 31.6), GREEN, dashed=True)
    arrow(ax, (5.75, 26.6), (5.75, 21.25), GREEN, dashed=True)
    ax.text(6.4, 24, "if unseen", fontsize=10.5, color=GREEN, ha="left", va="center", style="italic")


def draw_figure() -> plt.Figure:
    """The whole figure, 1800 pixels wide at 150 dots an inch."""
    figure = plt.figure(figsize=(12, 8.7), facecolor="white")
    ax = figure.add_axes((0.005, 0.005, 0.99, 0.99))
    ax.set(xlim=(0, 99.5), ylim=(1.5, 73.5))
    ax.set_aspect("equal")
    ax.axis("off")
    for draw in (draw_network, draw_adversary, draw_random_effects, draw_mixing, draw_cluster):
        draw(ax)
    return figure


if __name__ == "__main__":
    target = Path(__file__).parent / "figures" / "armed.png"
    target.parent.mkdir(exist_ok=True)
    matplotlib.rcParams["svg.hashsalt"] = "armed"  # the same file in each run
    figure = draw_figure()
    figure.savefig(target, dpi=150)
    figure.savefig(target.with_suffix(".svg"), metadata={"Date": None})
    print(target, target.with_suffix(".svg"))
