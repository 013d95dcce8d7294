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

"""What hiding the site costs, as a curve; ``python benchmarks/left_out_sites/tradeoff.py STUDY --data PATH``.

One direction after another in which the sites' means differ is erased, the strongest first, from so many principal
components; each point is scored as the table's rows are. ``tradeoff_STUDY.csv`` and ``tradeoff_STUDY.png`` are written.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from methods import Fitted, Method, linear, on_components
from scores import score
from studies import READERS
from tqdm import tqdm

__all__ = ["erased", "points"]

COMPONENTS = (100, 200)


def leace(x: np.ndarray, site: np.ndarray, directions: int) -> np.ndarray:
    """The least change (D, D) after which the sites' means do not differ in their strongest directions."""
    of_site = [x[site == k] for k in np.unique(site)]
    means = np.stack([np.sqrt(len(own) / len(x)) * (own.mean(axis=0) - x.mean(axis=0)) for own in of_site])
    _, strength, right = np.linalg.svd(means, full_matrices=False)
    covariance = np.cov(x.T)
    covariance += 1e-3 * np.diag(covariance).mean() * np.eye(len(covariance))
    variances, axes = np.linalg.eigh(covariance)
    whiten, colour = (axes / np.sqrt(variances)) @ axes.T, (axes * np.sqrt(variances)) @ axes.T
    strongest = strength[:directions, None] * right[:directions]
    _, found, span = np.linalg.svd(strongest @ whiten, full_matrices=False)
    span = span[found > 1e-6 * found.max(initial=0)]
    return np.eye(len(covariance)) - whiten @ span.T @ span @ colour


def erased(directions: int) -> Method:
    """So many directions of the sites' means erased, regardless of the label; 0: none."""

    def fit(x: np.ndarray, y: np.ndarray, site: np.ndarray, is_class: bool) -> Fitted:
        matrix, mean = leace(x, site, directions), x.mean(axis=0)

        def features_of(a: np.ndarray, s: np.ndarray) -> np.ndarray:
            return mean + (a - mean) @ matrix

        weight, bias = linear(features_of(x, site), y, is_class)
        return Fitted(features_of, lambda a, s: features_of(a, s) @ weight + bias)

    return fit


def points(study, directions: list[int], components: tuple[int, ...]) -> pd.DataFrame:
    """A row a number of components and of directions: ``left out``, ``site probe`` and so on."""
    plan = [(size, count) for size in components for count in directions]
    return pd.DataFrame(
        {"components": size, "directions": count, **score(study, on_components(erased(count), size))}
        for size, count in tqdm(plan, desc=study.name)
    )


def draw(table: pd.DataFrame, path: Path, title: str, score_name: str) -> None:
    """Write the curve, a line a number of components and a dot a number of directions."""
    figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for size, rows in table.groupby("components"):
        axis.plot(rows["site probe"], rows["left out"], "o-", markersize=4, label=f"{size} components")
        for row in rows.to_dict("records"):
            axis.annotate(str(row["directions"]), (row["site probe"], row["left out"]), fontsize=7, xytext=(3, 3),
                          textcoords="offset points")  # fmt: skip
    axis.axvspan(0, table["chance"].max() + 0.05, color="0.92", label="within .05 of chance")
    axis.set(xlabel="balanced accuracy of naming the site", ylabel=f"{score_name}, sites left out", title=title)
    axis.legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=list(READERS))
    parser.add_argument("--data", type=Path, required=True, help="the file of the study, or its folder")
    parser.add_argument("--out", type=Path, default=Path("runs/left_out_sites"))
    parser.add_argument("--components", nargs="+", type=int, default=list(COMPONENTS))
    args = parser.parse_args()
    study = READERS[args.study](args.data)
    most = len(study.names) - 1
    directions = sorted({0, 1, 2, 4, 8, most} & set(range(most + 1)))
    table = points(study, directions, tuple(args.components))
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"tradeoff_{args.study}.csv"
    table.drop(columns="seen mixed").round(4).to_csv(path, index=False)
    title = f"{study.name}: directions erased, as numbers"
    draw(table, path.with_suffix(".png"), title, "AUROC" if study.is_class else "R2")
    print(table.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
