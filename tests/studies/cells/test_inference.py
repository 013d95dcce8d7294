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

import pandas as pd
import pytest
from aec_samples import network, samples

from monai_armed.studies.cells.inference import write_cells


def test_predictions_name_batch_and_cell_and_whether_the_batch_is_known(tmp_path):
    loader = samples(["a", "c"], ["1", "1"], [0, -1])
    write_cells(network(), loader, ["a", "b"], tmp_path, [])
    table = pd.read_csv(tmp_path / "predictions.csv", dtype={"cell": str})
    assert table["batch"].tolist() == ["a", "c"] and table["cell"].tolist() == ["1", "1"]
    assert table["batch_known"].tolist() == [True, False] and table["probability"].between(0, 1).all()


def test_batches_whose_names_differ_in_blanks_and_slashes_have_folders_of_their_own(tmp_path, capsys):
    batches = ["day 1", "day/1", "Day_1", "..", "population"]
    write_cells(network(len(batches)), samples(["day 1"] * 3, list("123"), [0, 0, 0]), batches, tmp_path)
    folders = sorted(path.name for path in tmp_path.glob("as_*"))
    assert folders == ["as_..", "as_Day_1_3", "as_day_1", "as_day_1_2", "as_population"]
    assert all(len(list((tmp_path / folder).iterdir())) == 3 for folder in folders)
    assert "as_day_1_2 is of 'day/1'" in capsys.readouterr().out


def test_images_of_one_name_but_for_its_case_are_two_files(tmp_path):
    loader = samples(["a", "a"], ["1", "2"], [0, 0])
    loader[0]["file"] = ["x/cell.png", "y/Cell.png"]
    write_cells(network(), loader, ["a", "b"], tmp_path, [])
    assert pd.read_csv(tmp_path / "predictions.csv")["image"].tolist() == ["cell.png", "Cell_2.png"]


def test_of_300_batches_the_first_are_shown_unless_they_are_asked_for(tmp_path, capsys):
    batches = [f"d{j:03d}" for j in range(300)]
    net = network(300)
    write_cells(net, samples(["d000"], ["1"], [0]), batches, tmp_path / "few")
    assert len(list((tmp_path / "few").glob("as_*"))) == 25
    assert "300 batches: images are shown as the first 24; name others by as_batches" in capsys.readouterr().out
    write_cells(net, samples(["d000"], ["1"], [0]), batches, tmp_path / "asked", ["d299", "population"])
    assert sorted(path.name for path in (tmp_path / "asked").glob("as_*")) == ["as_d299", "as_population"]


def test_a_batch_is_shown_in_any_spelling_and_a_text_is_no_list_of_letters(tmp_path):
    write_cells(network(), samples(["a"], ["1"], [0]), ["007", "b"], tmp_path, ["7", "B"])
    assert sorted(path.name for path in tmp_path.glob("as_*")) == ["as_007", "as_b"]
    with pytest.raises(ValueError, match="as_batches must be a list of names of batches, got the string '007'"):
        write_cells(network(), samples(["a"], ["1"], [0]), ["007", "b"], tmp_path, "007")
