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

from pathlib import Path

import pandas as pd
import pytest
from aec_samples import network, samples

from monai_armed.data import KeptRows
from monai_armed.networks.blocks import ClusterLight, cluster_light
from monai_armed.networks.training_distance import fit_training_distance
from monai_armed.studies.cells import inference
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


def test_rows_are_kept_once_their_images_are_written(tmp_path, monkeypatch):
    write, kept = inference._write_images, KeptRows()

    def full_disk(grey, names, folder: Path) -> None:
        if "b_2_0.png" in names and folder.name == "as_a":
            raise OSError("no space left")
        write(grey, names, folder)

    monkeypatch.setattr(inference, "_write_images", full_disk)
    loader = [*samples(["a"], ["1"], [0]), *samples(["b"], ["2"], [1]), *samples(["a"], ["3"], [0])]
    with pytest.raises(OSError, match="no space left"):
        write_cells(network(), loader, ["a", "b"], tmp_path, kept=kept)
    assert [row["file"] for row in kept.rows] == ["a_1_0.png"]
    assert {path.name for path in (tmp_path / "as_population").iterdir()} == {"a_1_0.png", "b_2_0.png"}


def test_the_light_of_unknown_batches_is_measured_once(tmp_path, monkeypatch):
    net, measured, distant = network(), [], samples(["b"] * 3, list("123"), [0] * 3)
    net.light, net.removes_light = ClusterLight(2), True
    net.light.fit(samples(["a"] * 4, list("1234"), [0, 0, 1, 1]))
    measure = cluster_light.measure_light
    monkeypatch.setattr(cluster_light, "measure_light", lambda x: measured.append(len(x)) or measure(x))
    net.training_distance = fit_training_distance(net, samples(["a"] * 4, list("1234"), [0] * 4), distant)
    measured.clear()
    write_cells(net, samples(["new"] * 2, list("12"), [-1, -1]), ["a", "b"], tmp_path)
    assert measured == [2]  # for predictions, distance and pictures
    loader = samples(["new"] * 2, list("12"), [-1, -1])
    x, cluster = loader[0]["image"], loader[0]["cluster"]
    found = list(net.show_as_each(x, cluster, [-1, 1], net.describe(x, cluster)["light"]))
    for images, again in zip(found, net.show_as_each(x, cluster, [-1, 1]), strict=True):
        assert (images == again).all()
