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

import matplotlib
import numpy as np
import pandas as pd
import pytest

from monai_armed.visualize import mixed_model
from monai_armed.visualize.mixed_model import (
    plot_caterpillar,
    plot_intercept_balance,
    plot_shrinkage,
    plot_slope_scale,
)

matplotlib.use("Agg")


@pytest.fixture
def figures(monkeypatch):
    """Figures as they are saved."""
    saved = []
    save = mixed_model.save_figure
    monkeypatch.setattr(mixed_model, "save_figure", lambda figure, path: (saved.append(figure), save(figure, path))[1])
    return saved


def effects(seed: int = 0, n: int = 12) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Posterior of a simulated random intercept with known residual variance, and each cluster's own mean."""
    rng = np.random.default_rng(seed)
    samples = rng.integers(2, 60, n)
    own = rng.normal(0, 1, n) + rng.normal(0, 2 / np.sqrt(samples))
    weight = 1 / (1 + 4 / samples)
    sd = np.sqrt(weight * 4 / samples)
    index = pd.Index([f"site {i}" for i in range(n)], name="cluster")
    mean = weight * own
    table = pd.DataFrame({"mean": mean, "low": mean - 1.96 * sd, "high": mean + 1.96 * sd}, index=index)
    return table, pd.DataFrame({"estimate": own, "samples": samples}, index=index)


def test_caterpillar_is_in_order_of_the_mean(figures, tmp_path):
    table, _ = effects()
    assert plot_caterpillar(table, tmp_path / "new" / "caterpillar.png").stat().st_size > 5000
    (axis,) = figures[0].axes
    np.testing.assert_allclose(np.asarray(axis.containers[0].lines[0].get_xdata(), float), np.sort(table["mean"]))
    assert [t.get_text() for t in axis.get_yticklabels()] == list(table.sort_values("mean").index)
    plot_caterpillar(table.assign(note="(5 % AD)"), tmp_path / "noted.png")
    assert figures[1].axes[0].get_yticklabels()[0].get_text().endswith("(5 % AD)")


def test_slope_scale_stands_beside_the_importance(figures, tmp_path):
    names = [f"feature {i}" for i in range(20)]
    rng = np.random.default_rng(0)
    folds = [
        pd.DataFrame({"importance": np.arange(20) + rng.normal(0, 0.3, 20), "sd": rng.uniform(0, 1, 20)}, index=names)
        for _ in range(5)
    ]
    plot_slope_scale(pd.concat(folds), tmp_path / "slopes.png")
    left, right = figures[0].axes
    assert [t.get_text() for t in left.get_yticklabels()] == names
    mean = pd.concat(folds).groupby(level=0).mean().loc[names]
    np.testing.assert_allclose([bar.get_width() for bar in left.patches], mean["importance"])
    np.testing.assert_allclose([bar.get_width() for bar in right.patches], mean["sd"])
    plot_slope_scale(folds[0], tmp_path / "one_fold.png")


def test_intercept_balance_says_how_they_correlate(figures, tmp_path):
    table, _ = effects()
    balance = (1 / (1 + np.exp(-table["mean"]))).sample(frac=1, random_state=0)  # matched by name, not by place
    plot_intercept_balance(table, balance, tmp_path / "balance.png")
    expected = np.corrcoef(balance.loc[table.index], table["mean"])[0, 1]
    assert expected > 0.9 and figures[0].axes[0].get_title().endswith(f"{expected:.2f}")
    with pytest.raises(ValueError, match=r"no class balance is given for \['site 3'\]"):
        plot_intercept_balance(table, balance.drop("site 3"), tmp_path / "balance.png")


def test_shrinkage_joins_each_cluster_with_itself(figures, tmp_path):
    table, alone = effects()
    plot_shrinkage(table, alone.sample(frac=1, random_state=0), tmp_path / "shrinkage.png", "random intercept")
    lines = [line.get_ydata() for line in figures[0].axes[0].lines[: len(table)]]
    np.testing.assert_allclose(lines, np.stack([alone["estimate"], table["mean"]], 1))
    with pytest.raises(ValueError, match=r"no own estimate is given for \['site 3'\]"):
        plot_shrinkage(table, alone.drop("site 3"), tmp_path / "shrinkage.png")
