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
"""The page of an audit: text of the data is text, nothing is fetched, and its tables sort in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess

import pandas as pd
import pytest

from monai_armed.audit.page import report_page

TABLE = pd.DataFrame({"site": ["b", "<script>alert(1)</script>", "a & c"], "auroc": [0.9, float("nan"), 0.123456]})


def page(**change) -> str:
    sections = [("sites", "Sites", "What <b> is said", TABLE)]
    return report_page(**{"title": "<T>", "verdict": ["a < b"], "warns": True, "sections": sections} | change)


def test_text_of_the_data_is_escaped_and_nothing_is_fetched():
    html = page(figures={}, facts={"data": "<i>list</i>"})
    assert html.count("<script>") == 1 and "&lt;script&gt;alert(1)" in html and "a &amp; c" in html
    assert "<b>" not in html and "<i>" not in html and "<T>" not in html
    assert "default-src 'none'" in html and not re.search(r"(src|href)=", html)
    assert 'data-value="">n/a' in html and 'data-value="0.123456">0.123' in html


def test_tables_sort_in_a_browser(tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no Chromium")
    clicks = "const b = document.querySelectorAll('th button')[1]; b.click(); b.click();"
    html = page(figures={}, facts={}).replace("</body>", f"<script>{clicks}</script></body>")
    (tmp_path / "page.html").write_text(html, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile", "--dump-dom"]
    command = [browser, *options, (tmp_path / "page.html").as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    body = shown[shown.index("<tbody>") : shown.index("</tbody>")]
    assert re.findall(r"<tr><td class=\"text\">(.)", body) == ["b", "a", "&"]  # falling, what is not known last
    assert 'aria-sort="descending"' in shown
