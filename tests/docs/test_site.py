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

"""The docs site builds without a warning, its links lead somewhere, and the Python of its pages runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
UNDEFINED = re.compile(r'<span class="xref [^"]*">([^<]*)</span>')


def python_of(page: Path) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S))


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("myst_nb", reason="needs the docs extra")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-c", "docs"]
    command += ["-d", str(tmp_path / "cache"), ".", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr

    for page in PAGES:
        html = (tmp_path / "site" / page.relative_to(ROOT)).with_suffix(".html")
        text = html.read_text(encoding="utf-8")
        assert not UNDEFINED.findall(text), f"{page.name} has links that lead nowhere"
        assert not re.search(r"(:py:\w+:|system-message)", text), f"{page.name} shows markup"
    first = (tmp_path / "site" / "docs" / "index.html").read_text(encoding="utf-8")
    assert "ARMEDLoss" in first  # the example of the README


@pytest.mark.parametrize("page", [p for p in PAGES if python_of(p)], ids=lambda p: p.stem)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(python_of(page), str(page), "exec"), {"__name__": "page"})
