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

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from monai_armed.compare.report import plot_comparison, write_report
from monai_armed.metrics.comparison import summarize_folds


def results(models=("plain", "armed|wide"), simulations=(1, 2), folds=5):
    rng = np.random.RandomState(0)
    return pd.DataFrame(
        [
            {"simulation": s, "metric": "accuracy", "model": m, "fold": k, "value": 0.6 + 0.2 * i + 0.01 * rng.randn()}
            for s in simulations
            for i, m in enumerate(models)
            for k in range(folds)
        ]
    )


PAPER = pd.DataFrame(
    [{"simulation": 1, "metric": "accuracy", "model": "plain", "value": 0.5, "low": 0.4, "high": 0.61}]
)
CEILING = pd.DataFrame({"simulation": [1, 2], "metric": "accuracy", "value": [0.908, 0.874]})


def table_rows(text):
    return [[cell.strip() for cell in line.split(" | ")] for line in text.splitlines() if line.startswith("| ")]


def test_every_number_stands_in_the_table(tmp_path):
    frame = results()
    files = write_report(frame, tmp_path / "new", title="Spirals", paper=PAPER, ceiling=CEILING, notes="Simulated.")
    text = files["report"].read_text(encoding="utf-8")
    assert text.startswith("# Spirals\n\nSimulated.\n")
    first = summarize_folds(frame).iloc[0]
    expected = f"{first['mean']:.3f} [{first['low']:.3f}, {first['high']:.3f}]"
    assert ["| plain", expected, "5", "0.500 [0.400, 0.610]", "0.908 |"] in table_rows(text)
    # simulation 2 has no published value, so no such column
    row = summarize_folds(frame).iloc[2]
    expected = f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
    assert ["| plain", expected, "5", "0.874 |"] in table_rows(text)
    assert "plain - armed\\|wide" in text and "< 0.001" in text


def test_limits_beyond_the_metrics_scale_are_cut_and_it_is_said(tmp_path):
    frame = results(folds=2).assign(value=[0.95, 0.75, 0.95, 0.7] * 2)
    text = write_report(frame, tmp_path)["report"].read_text(encoding="utf-8")
    assert ", 1.000]" in text and "is cut there: so many folds are too few" in text
    assert "is cut there" not in write_report(results(), tmp_path)["report"].read_text(encoding="utf-8")


def test_small_numbers_keep_their_digits(tmp_path):
    """A reconstruction error of 0.0023 is not 0.002."""
    frame = results()
    frame["value"] /= 100
    text = write_report(frame, tmp_path)["report"].read_text(encoding="utf-8")
    assert f"{summarize_folds(frame).iloc[0]['mean']:.5f} [" in text


def test_files_hold_what_they_are_named_for(tmp_path):
    frame = results()
    files = write_report(frame, tmp_path, ceiling=CEILING)
    assert set(files) == {"results", "summary", "tests", "comparison", "report"}
    pd.testing.assert_frame_equal(pd.read_csv(files["results"]), frame)
    summary = pd.read_csv(files["summary"])
    assert summary["ceiling"].tolist() == [0.908, 0.908, 0.874, 0.874]
    assert len(pd.read_csv(files["tests"])) == 2
    pixels = np.asarray(Image.open(files["comparison"]).convert("L"))
    assert min(pixels.shape) > 100 and pixels.std() > 5


def test_the_picture_shows_means_intervals_and_ceiling():
    summary = summarize_folds(results()).assign(ceiling=[0.9, 0.9, 0.8, 0.8])
    figure = plot_comparison(summary, ["simulation", "metric"], percent=True)
    panels = figure.axes
    assert [panel.get_title() for panel in panels] == ["simulation 1", "simulation 2"]
    assert panels[0].get_xlabel() == "accuracy (%)"
    points = panels[0].containers[0].lines[0]
    np.testing.assert_allclose(points.get_xdata(orig=False), 100 * summary["mean"][:2].to_numpy())
    bars = panels[0].containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose([s[:, 0] for s in bars], 100 * summary[["low", "high"]][:2].to_numpy())
    assert 90.0 in [line.get_xdata()[0] for line in panels[0].lines]
    assert panels[0].get_ylim() == (1.5, -0.5)  # the first model on top


def test_percent(tmp_path):
    frame = results(models=("plain",), simulations=(1,)).assign(value=[0.5, 0.52, 0.54, 0.56, 0.58])
    text = write_report(frame, tmp_path, percent=True)["report"].read_text(encoding="utf-8")
    assert ["| plain", "54.0 [50.1, 57.9]", "5 |"] in table_rows(text)


def test_one_fold_and_a_model_missing_in_one_setting(tmp_path):
    frame = pd.concat([results(folds=1), results(models=("late",), simulations=(2,), folds=1)])
    text = write_report(frame, tmp_path)["report"].read_text(encoding="utf-8")
    late = [row for row in table_rows(text) if row[0] == "| late"]
    assert late == [["| late", "0.618", "1 |"]]
    assert "n/a" in text and "nan" not in text


def test_bad_frames(tmp_path):
    with pytest.raises(ValueError, match="no results to report"):
        write_report(results().iloc[:0], tmp_path)
    with pytest.raises(ValueError, match=r"paper lacks the columns \['simulation'\]"):
        write_report(results(), tmp_path, paper=PAPER.drop(columns="simulation"))
    with pytest.raises(ValueError, match=r"ceiling lacks the columns \['metric'\]"):
        write_report(results(), tmp_path, ceiling=CEILING.drop(columns="metric"))
    assert list(tmp_path.iterdir()) == []
