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

"""The table of results: a row a model, each figure for every source that was left out."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from monai_armed.metrics.comparison import paired_t_tests

__all__ = ["write_results"]

TEST_RATIO = 1 / 3  # 20 % of the seen sources' images are tested, 60 % trained on


def write_results(results: pd.DataFrame, out: Path, reference: str = "ARMED: erased within class") -> str:
    """
    Write ``results.csv`` (a row a model, source and seed), ``results.md`` (means over seeds, one figure for each source
    that was left out; of the unseen source also the p of the paired test) and ``tests.csv`` (paired over seeds against
    ``reference``, corrected for shared images).

    Args:
        results: ``model``, ``left out``, ``seed``, and the scores.
        out: folder to write to.
        reference: model that the others are compared with.

    Returns:
        the table in Markdown.
    """
    results.to_csv(out / "results.csv", index=False)
    scores = [name for name in results if name not in ("model", "left out", "seed")]
    tests = _against(results, scores, reference)
    tests.to_csv(out / "tests.csv", index=False)
    sources = sorted(results["left out"].unique())
    means = results.groupby(["model", "left out"], sort=False)[scores].mean()
    trainings = results.groupby("model", sort=False).size()
    lines = [
        f"Left out: {' / '.join(sources)}, means over seeds.",
        "",
        "| model | trainings | " + " | ".join(scores) + " | p, unseen |",
        "|---" * (len(scores) + 3) + "|",
    ]
    for model, count in trainings.items():
        cells = [" / ".join(_figure(means, model, source, name) for source in sources) for name in scores]
        cells.append(" / ".join(_p(tests, model, source) for source in sources))
        lines.append(f"| {model} | {count} | " + " | ".join(cells) + " |")
    text = "\n".join(lines) + "\n"
    (out / "results.md").write_text(text, encoding="utf-8")
    return text


def _against(results: pd.DataFrame, scores: list[str], reference: str) -> pd.DataFrame:
    """Paired tests of every model against the reference; those between others are left out."""
    tidy = results.melt(["model", "left out", "seed"], scores, "metric").rename(columns={"seed": "fold"})
    tests = paired_t_tests(tidy, TEST_RATIO)
    return tests[(tests["model_a"] == reference) | (tests["model_b"] == reference)]


def _p(tests: pd.DataFrame, model: str, source: str) -> str:
    """Of the unseen source's AUROC; nothing for the reference itself, and where there are too few seeds."""
    own = (tests["model_a"] == model) | (tests["model_b"] == model)
    found = tests.loc[own & (tests["left out"] == source) & (tests["metric"] == "unseen"), "p_corrected"]
    return f"{found.iloc[0]:.3f}" if len(found) == 1 and found.notna().all() else ""


def _figure(means: pd.DataFrame, model: str, source: str, score: str) -> str:
    value = means[score].get((model, source), float("nan"))
    return "" if value != value else f"{value:.0f}" if score.endswith("seconds") else f"{value:.3f}"
