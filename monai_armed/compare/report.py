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

"""Report of a comparison of models: a Markdown table, CSV files and a picture from one tidy frame of results."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from monai.utils import optional_import

from monai_armed.data.replaced_file import write_csv, write_text
from monai_armed.metrics.comparison import SHARES, paired_t_tests, setting_columns, summarize_folds

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure, _ = optional_import("matplotlib.figure", name="Figure")

__all__ = ["plot_comparison", "write_report"]

PANELS_A_ROW = 4
NEUTRAL, OURS, PAPER, CEILING = "0.35", "#1f5fa8", "#d9822b", "#2a8a4a"


def write_report(
    results: pd.DataFrame,
    folder: str | Path,
    title: str = "Comparison of models",
    paper: pd.DataFrame | None = None,
    ceiling: pd.DataFrame | None = None,
    percent: bool = False,
    notes: str = "",
    test_ratio: float | None = None,
) -> dict[str, Path]:
    """Write ``report.md``, ``results.csv``, ``summary.csv``, ``tests.csv`` and ``comparison.png``.

    Args:
        results: tidy frame with the columns ``model``, ``fold``, ``metric``, ``value`` and any that tell settings
            apart (simulation, partition ...); one row a number.
        folder: where to write; made if it is not there.
        title: first line of the report.
        paper: published values to stand beside ours: the setting columns of ``results``, ``model``, ``value`` and,
            where known, ``low`` and ``high``.
        ceiling: best attainable values: the setting columns of ``results`` and ``value``.
        percent: write values as percentages with one decimal, not as fractions with three.
        notes: a paragraph under the title, such as what data it is.
        test_ratio: where folds are of the same samples, for the p-values, see
            :py:func:`~monai_armed.metrics.comparison.paired_t_tests`.

    Returns:
        The path of each file by its name without extension.

    Raises:
        ValueError: when ``results`` is empty or not tidy, or ``paper`` or ``ceiling`` lack a column.
    """
    if results.empty:
        raise ValueError("there are no results to report.")
    settings = setting_columns(results)
    _check_columns("paper", paper, [*settings, "model", "value"])
    _check_columns("ceiling", ceiling, [*settings, "value"])
    summary, tests = summarize_folds(results), paired_t_tests(results, test_ratio)
    summary = _side_by_side(summary, settings, paper, ceiling)

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}.csv" for name in ("results", "summary", "tests")}
    for frame, path in zip((results, summary, tests), files.values()):
        write_csv(frame, path)
    files["comparison"] = folder / "comparison.png"
    plot_comparison(summary, settings, percent).savefig(files["comparison"], dpi=150, bbox_inches="tight")
    files["report"] = folder / "report.md"
    write_text(_markdown(summary, tests, settings, title, notes, percent), files["report"])
    return files


def plot_comparison(summary: pd.DataFrame, settings: list[str], percent: bool = False) -> Figure:
    """Means with their intervals, a panel for each setting, four in a row, with the paper's values and the ceiling.

    Args:
        summary: frame from :py:func:`~monai_armed.metrics.comparison.summarize_folds`, with the columns ``paper``,
            ``paper_low``, ``paper_high`` and ``ceiling`` where known.
        settings: columns that tell panels apart.
        percent: label the axis in per cent.
    """
    parts = list(summary.groupby(settings, sort=False))
    models = list(dict.fromkeys(summary["model"]))
    rows, columns = -(-len(parts) // PANELS_A_ROW), min(len(parts), PANELS_A_ROW)
    size = (1.5 + 3.2 * columns, 0.4 + rows * (0.8 + 0.38 * len(models)))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for panel in panels[len(parts) :]:
        panel.set_axis_off()
    scale = 100 if percent else 1
    handles: dict[str, Any] = {}
    for panel, (key, part) in zip(panels, parts):
        part = part.set_index("model").reindex(models).drop(columns=settings).astype(float)
        at = np.arange(len(models))
        error = scale * np.stack([part["mean"] - part["low"], part["high"] - part["mean"]])
        error = np.nan_to_num(error)
        handles["mean and 95 % CI"] = panel.errorbar(
            scale * part["mean"], at, xerr=error, fmt="o", color=OURS, ecolor=NEUTRAL, capsize=3, markersize=5
        )
        if "paper" in part and part["paper"].notna().any():
            error = np.nan_to_num(
                scale * np.stack([part["paper"] - part["paper_low"], part["paper_high"] - part["paper"]])
            )
            handles["paper"] = panel.errorbar(
                scale * part["paper"], at + 0.25, xerr=error, fmt="D", color=PAPER, capsize=2, markersize=4, alpha=0.8
            )
        if "ceiling" in part and part["ceiling"].notna().any():
            handles["ceiling"] = panel.axvline(scale * part["ceiling"].dropna().iloc[0], color=CEILING, linestyle="--")
        others = [(name, value) for name, value in zip(settings, key) if name != "metric"]
        panel.set_title(_setting_name([n for n, _ in others], tuple(v for _, v in others)), fontsize=10)
        panel.set_xlabel(f"{dict(zip(settings, key))['metric']}{' (%)' * percent}")
        panel.set_yticks(at, models)
        panel.grid(axis="x", color="0.9")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylim(len(models) - 0.5, -0.5)
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def _check_columns(name: str, frame: pd.DataFrame | None, columns: list[str]) -> None:
    if frame is not None and (missing := [c for c in columns if c not in frame]):
        raise ValueError(f"{name} lacks the columns {missing}, which results have: it needs {columns}.")


def _side_by_side(
    summary: pd.DataFrame, settings: list[str], paper: pd.DataFrame | None, ceiling: pd.DataFrame | None
) -> pd.DataFrame:
    """Our summary with the columns ``paper``, ``paper_low``, ``paper_high`` and ``ceiling`` joined where given."""
    if paper is not None:
        names = {"value": "paper", "low": "paper_low", "high": "paper_high"}
        paper = paper.reindex(columns=[*settings, "model", *names]).rename(columns=names)
        summary = summary.merge(paper, on=[*settings, "model"], how="left", validate="one_to_one")
    if ceiling is not None:
        ceiling = ceiling[[*settings, "value"]].rename(columns={"value": "ceiling"})
        summary = summary.merge(ceiling, on=settings, how="left", validate="many_to_one")
    return summary


def _markdown(
    summary: pd.DataFrame, tests: pd.DataFrame, settings: list[str], title: str, notes: str, percent: bool
) -> str:
    lines = [f"# {title}", ""]
    if notes:
        lines += [notes, ""]
    lines.append("Means are over folds, with their 95 % t intervals.")
    shares = summary[summary["metric"].str.endswith(SHARES)]
    if (shares[["low", "high"]] == [0.0, 1.0]).to_numpy()[shares["sd"] > 0].any():
        lines[-1] += (
            " An interval that would go below 0 or above 1, where its metric has no values, is cut there: so many "
            "folds are too few to say more."
        )
    if "p_corrected" in tests:
        lines[-1] += (
            " Folds share training samples: intervals and p are those of this cross-validation, not of new data; "
            "the corrected p takes account of it (Nadeau and Bengio 2003)."
        )
    for key, part in summary.groupby(settings, sort=False):
        number = partial(_number, percent=percent, decimals=3 if part["mean"].abs().max() >= 0.1 else 5)
        means = _intervals(part, "mean", "low", "high", number)
        table = pd.DataFrame({"Model": part["model"], "Mean [95 % CI]": means})
        table["Folds"] = part["num_folds"].astype(str)
        if "paper" in part and part["paper"].notna().any():
            table["Paper"] = _intervals(part, "paper", "paper_low", "paper_high", number)
        if "ceiling" in part:
            table["Ceiling"] = [number(v) for v in part["ceiling"]]
        lines += ["", f"## {_setting_name(settings, key)}{' (%)' * percent}", "", *_table(table)]
        chosen = tests.loc[(tests[settings] == pd.Series(dict(zip(settings, key)))).all(axis=1)]
        if len(chosen):
            lines += ["", "Paired t-tests over folds:", "", *_table(_test_table(chosen, number))]
    return "\n".join(lines) + "\n"


def _test_table(tests: pd.DataFrame, number: Callable[..., str]) -> pd.DataFrame:
    rows = []
    for test in tests.to_dict("records"):
        ps = [_probability(test[name]) for name in ("p", "p_corrected") if name in test]
        t = "n/a" if np.isnan(test["t"]) else f"{test['t']:.2f}"
        difference = number(test["difference"], signed=True)
        rows.append((f"{test['model_a']} - {test['model_b']}", difference, t, *ps, str(test["num_folds"])))
    names = ["p", "p corrected"] if "p_corrected" in tests else ["p"]
    return pd.DataFrame(rows, columns=["Pair", "Difference", "t", *names, "Folds"])


def _probability(p: float) -> str:
    return "n/a" if np.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _table(frame: pd.DataFrame) -> list[str]:
    """A frame of strings as a Markdown table; bars in a model's name are escaped."""
    rows = [list(frame.columns), ["---"] * frame.shape[1], *frame.to_numpy().tolist()]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]


def _number(value: float, percent: bool, decimals: int, signed: bool = False) -> str:
    if np.isnan(value):
        return "n/a"
    sign = "+" if signed else ""
    return f"{100 * value:{sign}.1f}" if percent else f"{value:{sign}.{decimals}f}"


def _intervals(part: pd.DataFrame, mean: str, low: str, high: str, number: Callable[..., str]) -> list[str]:
    cells = []
    for value, lower, upper in part[[mean, low, high]].to_numpy(float):
        interval = "" if np.isnan(lower) else f" [{number(lower)}, {number(upper)}]"
        cells.append(number(value) + interval)
    return cells


def _setting_name(settings: list[str], key: tuple[Any, ...]) -> str:
    return ", ".join(str(v) if name == "metric" else f"{name} {v}" for name, v in zip(settings, key))
