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

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from monai.data import Dataset

from monai_armed.data import KeptRows, TolerantLoader

MADE_BY = {"model": "3f2a"}


def files(folder: Path, count: int = 5) -> list[dict]:
    folder.mkdir(exist_ok=True)
    for i in range(count):
        (folder / f"{i}.txt").write_text(f"image {i}")
    return [{"image": str(folder / f"{i}.txt"), "file": f"{i}.txt"} for i in range(count)]


def interrupted(tmp_path: Path, made_by: dict | None = None) -> list[dict]:
    """Five samples, of which a run has predicted the first three."""
    items = files(tmp_path / "in")
    kept = KeptRows(tmp_path, MADE_BY if made_by is None else made_by)
    assert kept.remaining(items) == [0, 1, 2, 3, 4]
    kept.add([{"file": f"{i}.txt", "p": np.float32(0.1) + i} for i in (0, 1)])
    kept.add([{"file": "2.txt", "p": 2.5, "flag": np.bool_(True), "latent": [1.0, 2.0]}])
    return items


def test_an_interrupted_run_goes_on_where_it_was(tmp_path, caplog):
    items = interrupted(tmp_path)
    again = KeptRows(tmp_path, MADE_BY)
    with caplog.at_level(logging.INFO):
        assert again.remaining(items) == [3, 4]
    assert "3 of 5 samples" in caplog.text
    assert [row["file"] for row in again.rows] == ["0.txt", "1.txt", "2.txt"]
    assert again.rows[2] == {"file": "2.txt", "p": 2.5, "flag": True, "latent": [1.0, 2.0]}
    again.add([{"file": "3.txt", "p": 0.0}])
    third = KeptRows(tmp_path, MADE_BY)
    assert third.remaining(items) == [4] and len(third.rows) == 4
    third.add([{"file": "4.txt", "p": 0.0}])
    third.finish()
    assert not list(tmp_path.glob("predictions*"))
    assert KeptRows(tmp_path, MADE_BY).remaining(items) == [0, 1, 2, 3, 4]


def test_rows_that_another_has_made_are_not_taken_over(tmp_path, caplog):
    items = interrupted(tmp_path)
    other = KeptRows(tmp_path, {"model": "77aa"})
    assert other.remaining(items) == [0, 1, 2, 3, 4] and other.rows == []
    assert "another model" in caplog.text


@pytest.mark.parametrize("change", ["the file", "what is said of it", "another sample of its name"])
def test_a_sample_that_has_changed_is_predicted_anew(tmp_path, change):
    items = interrupted(tmp_path)
    if change == "the file":
        Path(items[1]["image"]).write_text("another image")
    elif change == "what is said of it":
        items[1]["site"] = "Mayo"
    else:
        items[3]["file"] = "1.txt"
    kept = KeptRows(tmp_path, MADE_BY)
    assert kept.remaining(items) == [1, 3, 4]
    assert [row["file"] for row in kept.rows] == ["0.txt", "2.txt"]


@pytest.mark.parametrize("cut", [3, 40])
def test_a_row_that_was_cut_off_is_predicted_anew(tmp_path, cut):
    items = interrupted(tmp_path)
    file = tmp_path / "predictions.unfinished.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    kept = KeptRows(tmp_path, MADE_BY)
    assert kept.remaining(items) == [2, 3, 4]
    kept.add([{"file": "2.txt", "p": 7.0}])
    again = KeptRows(tmp_path, MADE_BY)
    assert again.remaining(items) == [3, 4] and again.rows[-1]["p"] == 7.0


def test_the_table_is_in_the_order_of_the_samples(tmp_path):
    items = interrupted(tmp_path)
    Path(items[0]["image"]).write_text("another image")
    kept = KeptRows(tmp_path, MADE_BY)
    assert kept.remaining(items) == [0, 3, 4]
    kept.add([{"file": f"{i}.txt"} for i in (0, 3, 4)])
    assert [row["file"] for row in kept.table()] == [f"{i}.txt" for i in range(5)]


def test_of_samples_that_all_have_rows_the_last_is_predicted(tmp_path):
    items = interrupted(tmp_path)[:3]
    assert KeptRows(tmp_path, MADE_BY).remaining(items) == [2]


def test_a_damaged_file_is_no_obstacle(tmp_path):
    items = interrupted(tmp_path)
    (tmp_path / "predictions.unfinished.jsonl").write_bytes(b"\xff\x00[1, 2\n{}")
    assert KeptRows(tmp_path, MADE_BY).remaining(items) == [0, 1, 2, 3, 4]


def test_the_loader_gives_what_has_no_row(tmp_path):
    items = interrupted(tmp_path)
    loader = TolerantLoader(
        Dataset(items, lambda d: {**d, "x": 1 // (d["file"] != "3.txt")}), kept=KeptRows(tmp_path, MADE_BY)
    )
    assert [batch["file"] for batch in loader] == [["4.txt"]]
    assert [name for name, _ in loader.failed] == ["3.txt"] and loader.loaded == 4
    with pytest.raises(ValueError, match="1 of 5 samples could not be used, the other 4 were"):
        loader.report(tmp_path)


def test_a_second_process_is_refused_while_the_first_lives(tmp_path):
    items = interrupted(tmp_path)
    program = (
        f"from monai_armed.data.kept_rows import KeptRows\nKeptRows({str(tmp_path)!r}, {MADE_BY}).remaining({items!r})"
    )
    kept = KeptRows(tmp_path, MADE_BY)
    kept.remaining(items)
    second = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert second.returncode == 1 and "another process predicts into" in second.stderr
    kept.finish()
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0


def test_without_a_folder_rows_are_kept_in_memory():
    kept = KeptRows()
    assert kept.remaining([{"file": "a"}]) == [0]
    kept.add([{"file": "a"}])
    kept.finish()
    assert kept.rows == [{"file": "a"}]
