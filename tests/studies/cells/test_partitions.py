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

import json
import warnings
from collections import defaultdict

import pytest
from cell_folders import csv_folder, named_folder, study_rows

from monai_armed.data.held_out import provenance
from monai_armed.studies.cells import cell_partitions
from monai_armed.studies.cells.partitions import LEAST_CELLS
from monai_armed.transforms import LoadCelld

pytestmark = pytest.mark.filterwarnings("ignore:.* cells are few to train on:UserWarning")


def cells_by_partition(partitions):
    return {
        part: {(item["batch"], item["cell"]) for item in partitions[part]}
        for part in ("train", "val", "test", "unseen")
    }


def test_partitions_are_cell_wise_in_the_shares_of_the_paper(tmp_path):
    folder = csv_folder(tmp_path, study_rows())
    partitions = cell_partitions(folder, seed=3)
    assert partitions["batches"] == ["b0", "b1", "b2"]
    cells = cells_by_partition(partitions)
    assert [len(cells[part]) for part in ("train", "val", "test", "unseen")] == [42, 6, 12, 20]
    assert len(set.union(*cells.values())) == 80  # no cell in two partitions
    assert sum(len(partitions[part]) for part in cells) == 240  # every frame is in one
    assert {batch for batch, _ in cells["unseen"]} == {"b3"}
    for batch in partitions["batches"]:
        of_batch = [i for i in partitions["train"] if i["batch"] == batch]
        assert len(of_batch) == 14 * 3 and sum(i["label"] for i in of_batch) == 7 * 3
    assert cell_partitions(folder, seed=3) == partitions
    assert cells_by_partition(cell_partitions(folder, seed=4))["test"] != cells["test"]


def test_a_trained_model_is_tested_on_cells_that_it_was_not_trained_on(tmp_path):
    folder = csv_folder(tmp_path, study_rows())
    at_training = cell_partitions(folder, seed=3, seen_batches=["b0", "b3"])
    trained = json.loads(json.dumps(provenance(at_training)))
    assert cell_partitions(folder, seed=4, trained=trained) == at_training
    with pytest.raises(ValueError, match=r"was trained on \['b0', 'b3'\], not on \['b1'\]"):
        cell_partitions(folder, seen_batches=["b1"], trained=trained)


@pytest.mark.filterwarnings("ignore:.*has no image with label:UserWarning")
def test_over_seeds_every_cell_comes_to_train_validate_and_test(tmp_path):
    folder = csv_folder(tmp_path, study_rows(10, 2, frames=1, seen=2))
    came_to = defaultdict(set)
    for seed in range(60):
        for part, cells in cells_by_partition(cell_partitions(folder, seed=seed)).items():
            for cell in cells:
                came_to[cell].add(part)
    assert len(came_to) == 20 and all(parts == {"train", "val", "test"} for parts in came_to.values())


@pytest.mark.filterwarnings("ignore:.*has no image with label:UserWarning")
@pytest.mark.parametrize("seed", range(20))
def test_every_seen_batch_has_a_training_cell(tmp_path, seed):
    sizes = [2, 2, 3, 1, 2, 5, 2, 4, 2, 1, 2, 2]
    batches = [f"1503{b:02d}" for b, size in enumerate(sizes) for _ in range(size)]
    folder = named_folder(tmp_path, [(batch, ("m405", "m610")[x % 2]) for x, batch in enumerate(batches)], frames=1)
    partitions = cell_partitions(folder, seed=seed)
    assert {item["batch"] for item in partitions["train"]} == set(partitions["batches"])
    assert {item["batch"] for item in partitions["unseen"]} == {"150303", "150309"}


@pytest.mark.filterwarnings("ignore:.*has no image with label:UserWarning")
def test_which_batches_are_seen(tmp_path):
    cells = [("150301", "m405"), ("150301", "m610")] * 10 + [("150302", "m405")] * 3 + [("150304", "m405")] * 5
    folder = named_folder(tmp_path, cells)
    named_folder(folder, [("150303", "m610")])
    assert cell_partitions(folder)["batches"] == ["150301", "150302", "150304"]
    assert cell_partitions(folder, min_cells=4)["batches"] == ["150301", "150304"]
    assert cell_partitions(folder, seen_batches=["150301", "150302"])["batches"] == ["150301", "150302"]
    table = csv_folder(tmp_path / "table", study_rows(4, 3, frames=1, seen=2))
    assert cell_partitions(table)["batches"] == ["b0", "b1"]
    assert cell_partitions(table, min_cells=4)["batches"] == ["b0", "b1", "b2"]
    with pytest.raises(ValueError, match=r"seen batches \['150303'\] have a single cell; make them unseen"):
        cell_partitions(folder, seen_batches=["150301", "150303"])
    with pytest.raises(ValueError, match=r"no image of the seen .*'150309'"):
        cell_partitions(folder, seen_batches=["150309"])
    with pytest.raises(ValueError, match=r"no batch has 99 cells \(the largest has 20\)"):
        cell_partitions(folder, min_cells=99)
    with pytest.raises(ValueError, match="not both"):
        cell_partitions(folder, seen_batches=["150301"], min_cells=2)


@pytest.mark.parametrize("number, given", [(1, {}), (3, {"seen_batches": ["b0"]}), (3, {})])
def test_a_single_seen_batch_is_refused(tmp_path, number, given):
    folder = csv_folder(tmp_path, study_rows(4, number, frames=1, seen=1))
    with pytest.raises(ValueError, match=r"'b0' is the only seen batch of .*; effects of the batch need at least two"):
        cell_partitions(folder, **given)


def test_a_partition_without_a_label_is_named(tmp_path):
    folder = named_folder(tmp_path, [("150301", "m405"), ("150302", "m405")] * 5)
    with pytest.warns(UserWarning, match="train has no image with label 0; val has no image with label 0; test has"):
        cell_partitions(folder)


@pytest.mark.filterwarnings("ignore:.*has no image with label:UserWarning")
def test_simulate_fills_the_folder_first(tmp_path):
    arguments = {"size": 16, "frames": 2, "cells_per_batch": 3, "unseen_cells_per_batch": 1, "seed": 5}
    partitions = cell_partitions(tmp_path / "new", simulate=arguments | {"progress": False})
    assert len(partitions["batches"]) == 13 and len(partitions["unseen"]) == 11 * 2
    assert sum(len(partitions[part]) for part in ("train", "val", "test")) == 13 * 3 * 2
    assert {item["batch"] for item in partitions["train"]} == set(partitions["batches"])
    assert LoadCelld("image", 16)(partitions["train"][0])["image"].shape == (1, 16, 16)


def test_batches_of_ten_cells_do_not_validate_on_one_label_alone(tmp_path):
    folder = csv_folder(tmp_path, study_rows(10, 4, frames=1, seen=4))
    for seed in range(20):
        partitions = cell_partitions(folder, seed=seed)
        assert sum(item["label"] for item in partitions["val"]) == 2 == len(partitions["val"]) / 2
        assert 3 <= sum(item["label"] for item in partitions["test"]) <= 5


def test_cells_numbered_anew_in_each_batch_are_different_cells(tmp_path):
    rows = [{**row, "cell": row["cell"].split("_")[1]} for row in study_rows(10, 4, frames=1)]
    folder = csv_folder(tmp_path, rows)
    at_training = cell_partitions(folder)
    trained = json.loads(json.dumps(provenance(at_training)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = cell_partitions(folder, trained=trained)
    assert cells_by_partition(again) == cells_by_partition(at_training) and len(cells_by_partition(again)["test"]) == 6


def test_another_labs_images_are_unseen(tmp_path):
    trained = json.loads(json.dumps(provenance(cell_partitions(csv_folder(tmp_path / "a", study_rows(10))))))
    for first in (0, 5):  # batches of the model's names, and of others
        rows = [{**row, "batch": f"b{int(row['batch'][1:]) + first}"} for row in study_rows(10)]
        folder = csv_folder(tmp_path / f"lab{first}", rows)
        for row in rows:
            (folder / row["file"]).write_text(f"another lab's {row['file']}")
        with pytest.warns(UserWarning, match="the cell of .* samples has the name of one"):
            parts = cell_partitions(folder, trained=trained)
        assert not parts["train"] + parts["val"] + parts["test"] and len(parts["unseen"]) == 120
        assert parts["batches"] == ["b0", "b1", "b2"]  # the model's
        assert not {item["batch"] for item in parts["unseen"]} & set(parts["batches"])


def test_few_training_cells_are_warned_about(tmp_path):
    cells = LEAST_CELLS // 2  # of each of three seen batches, of which 70 % train
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cell_partitions(csv_folder(tmp_path / "many", study_rows(cells, frames=1)))
    with pytest.warns(UserWarning, match=rf"42 cells are few to train on: with fewer than {LEAST_CELLS} the network"):
        cell_partitions(csv_folder(tmp_path / "few", study_rows(20)))


def test_the_options_of_the_reader_reach_it(tmp_path):
    rows = [{**row, "label": ("bad", "good")[row["label"]], "day": row["batch"]} for row in study_rows(10)]
    folder = csv_folder(tmp_path, [{k: v for k, v in row.items() if k != "batch"} for row in rows])
    parts = cell_partitions(folder, reading={"site_column": "day", "diagnoses": {"good": 1, "bad": 0}})
    assert parts["batches"] == ["b0", "b1", "b2"] and {item["label"] for item in parts["train"]} == {0, 1}
    parts = cell_partitions(folder, reading={"site_column": "day", "diagnoses": {"good": 1}, "labels": {"p0": 0}})
    assert {item["label"] for item in parts["train"]} == {0, 1}
