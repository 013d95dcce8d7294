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

"""The audit's page of an evaluation's predictions: what a table of them must have, and what is said of a plain one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from monai_armed.audit.of_predictions import report_predictions


def predictions(leak: float, seed: int = 0) -> pd.DataFrame:
    """300 simulated samples of three sites, whose first one has higher scores by ``leak``."""
    rng = np.random.default_rng(seed)
    site = np.repeat(["a", "b", "c"], 100)
    label = rng.integers(0, 2, 300)
    score = rng.normal(size=300) + label + leak * (site == "a")
    return pd.DataFrame({"label": label, "score": score, "site": site, "manufacturer": np.where(site == "a", "X", "")})


@pytest.mark.parametrize(
    ("leak", "says"), [(3.0, "The network reads the site: its predictions"), (0.0, "Nothing shows")]
)
def test_it_says_whether_the_predictions_tell_the_site(leak, says, tmp_path):
    page = report_predictions(predictions(leak), "site", "subject", tmp_path / "report.html", "<fixed> predictions")
    html = page.read_text(encoding="utf-8")
    assert says in html and "&lt;fixed&gt; predictions" in html and "300 / 300 / 3" in html
    assert list(tmp_path.iterdir()) == [page]  # no table of its own beside those of the evaluation
    for word in ("promised", "null high"):
        assert word not in html


def test_subjects_and_unlabelled_samples(tmp_path):
    table = predictions(0).assign(subject=np.repeat(range(150), 2))
    table.loc[:9, "label"] = -1
    table.loc[10, "score"] = np.nan
    page = report_predictions(table, "site", "subject", tmp_path / "report.html", "x")
    assert "289 / 145 / 3" in page.read_text(encoding="utf-8")


def test_where_there_is_no_second_site_there_is_no_page(tmp_path):
    table = predictions(0)
    for wrong in (table.drop(columns="site"), table[table["site"] == "a"], table.assign(label=-1), table[:0]):
        assert report_predictions(wrong, "site", "subject", tmp_path / "report.html", "x") is None
    assert not (tmp_path / "report.html").exists()
    few = pd.concat([table[:3], table[-2:]])  # hardly any: a page that says so
    assert "Nothing can be said" in report_predictions(few, "site", "s", tmp_path / "a.html", "x").read_text()
    one_class = table.assign(label=1)
    assert report_predictions(one_class, "site", "s", tmp_path / "b.html", "x") is not None
