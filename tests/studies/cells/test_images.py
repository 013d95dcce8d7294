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

import os
import warnings
from collections import defaultdict
from pathlib import Path

import pandas as pd
import pytest
import torch

from monai_armed.bundle import provenance
from monai_armed.studies.cells import METASTATIC_EFFICIENCY, cell_partitions, read_cells
from monai_armed.transforms import LoadCelld

TEST_DATA = Path(os.environ.get("MONAI_ARMED_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
CELLS = TEST_DATA / "cells"
real_cells = pytest.mark.skipif(not CELLS.is_dir(), reason=f"the 60 real images of the melanoma set are not in {CELLS}")
NAME = "{batch}_{pdx}_s02_t184_x{x}_y527_t308_t7Ready_f{frame:05d}.png"


def named_folder(folder, cells, frames=2):
    """Empty files for cells given as (batch, pdx)."""
    folder.mkdir(parents=True, exist_ok=True)
    for x, (batch, pdx) in enumerate(cells):
        for frame in range(frames):
            (folder / NAME.format(batch=batch, pdx=pdx, x=x, frame=frame)).touch()
    return folder


def csv_folder(folder, rows, name="cells.csv"):
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        (folder / row["file"]).touch()
    pd.DataFrame(rows).to_csv(folder / name, index=False)
    return folder


def study_rows(cells_per_batch=20, batches=4, frames=3, seen=3):
    return [
        {"file": f"{b}_{c}_{f}.png", "batch": f"b{b}", "pdx": f"p{c % 2}", "cell": f"{b}_{c}", "frame": f}
        | {"label": c % 2, "seen": b < seen}
        for b in range(batches)
        for c in range(cells_per_batch)
        for f in range(frames)
    ]


def cells_by_partition(partitions):
    return {
        part: {(item["batch"], item["cell"]) for item in partitions[part]}
        for part in ("train", "val", "test", "unseen")
    }


def test_a_file_name_gives_batch_pdx_cell_and_frame(tmp_path):
    folder = named_folder(tmp_path, [("150312", "m405"), ("150312", "m610")])
    (folder / "notes.txt").touch()
    items = read_cells(folder)
    assert len(items) == 4 and [item["frame"] for item in items] == [0, 1, 0, 1]
    assert items[0] == {
        "image": str(folder / NAME.format(batch="150312", pdx="m405", x=0, frame=0)),
        "file": items[0]["image"],
        "batch": "150312",
        "label": 1,
        "pdx": "m405",
        "cell": "150312_m405_s02_t184_x0_y527_t308_t7Ready",
        "frame": 0,
    }
    assert len({item["cell"] for item in items}) == 2 and items[2]["label"] == 0


def test_clones_have_the_label_of_their_pdx_and_others_are_kept_and_named(tmp_path):
    folder = named_folder(tmp_path, [("150312", pdx) for pdx in ("m405c2", "a375c1", "um12")])
    with pytest.warns(UserWarning, match=r"4 of 6 cell images .* a375c1 \(2\), um12 \(2\)\.") as caught:
        items = read_cells(folder)
    assert len(caught) == 1
    assert {item["pdx"]: item["label"] for item in items} == {"m405c2": 1, "a375c1": -1, "um12": -1}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        items = read_cells(folder, labels={"a375": 0, "um12": 1, "m405c2": 0})
    assert {item["pdx"]: item["label"] for item in items} == {"m405c2": 0, "a375c1": 0, "um12": 1}
    with pytest.raises(ValueError, match=r"labels must be 0 \(low\) or 1 .* got {'um12': 2}"):
        read_cells(folder, labels={"um12": 2})


def test_four_pdxs_are_low_and_three_high_as_in_section_3_4():
    assert sorted(METASTATIC_EFFICIENCY.values()) == [0, 0, 0, 0, 1, 1, 1]


def test_a_csv_takes_its_columns_or_the_file_names_or_their_defaults(tmp_path):
    melanoma = NAME.format(batch="150312", pdx="m405", x=0, frame=7)
    rows = [{"file": melanoma, "batch": "day1", "label": "low"}, {"file": "a.tif", "batch": "day2", "label": ""}]
    items = read_cells(csv_folder(tmp_path, rows, "mine.csv") / "mine.csv", labels={})
    assert [(i["batch"], i["label"], i["pdx"], i["cell"], i["frame"]) for i in items] == [
        ("day1", 0, "m405", "150312_m405_s02_t184_x0_y527_t308_t7Ready", 7),
        ("day2", -1, "", "a.tif", 0),
    ]
    assert items[1]["image"] == str(tmp_path / "a.tif") and "seen" not in items[0]
    assert read_cells(tmp_path / "mine.csv", labels={"m405": 1})[0]["label"] == 1
    items = read_cells(csv_folder(tmp_path / "full", study_rows(2, 2)))
    assert (items[-1]["cell"], items[-1]["frame"], items[-1]["pdx"]) == ("1_1", 2, "p1")
    assert items[-1]["seen"] is True


@pytest.mark.parametrize("bytes_order_mark", [False, True])
def test_a_csv_separated_by_semicolons_as_spreadsheets_save_it(tmp_path, bytes_order_mark):
    rows = study_rows(2, 2)
    folder = csv_folder(tmp_path, [*rows, {**rows[0], "file": "a,b.png", "batch": "c,d", "cell": "e"}])
    table = pd.read_csv(folder / "cells.csv", dtype=str)
    expected = read_cells(folder)
    table.to_csv(folder / "cells.csv", index=False, sep=";", encoding="utf-8-sig" if bytes_order_mark else "utf-8")
    assert read_cells(folder) == expected and len(expected) == 13


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.drop(columns="label"), "no column 'label'; it needs file, batch and label, and has file, batch"),
        (lambda t: t.assign(label="none"), r"unknown values \['none'\] in column 'label'"),
        (lambda t: t.assign(seen="maybe"), r"unknown values \['maybe'\] in column 'seen'"),
        (lambda t: t.assign(frame="1.5"), r"frame '1.5' in line 2; frames are whole numbers"),
        (lambda t: t.assign(batch=""), r"no file or no batch in 8 rows \(first: line 2\)"),
        (lambda t: t.assign(file=t["file"][0]), "names the file '0_0_0.png' again in line 3"),
        (lambda t: t.assign(cell="one"), r"gives the cell 'one' more than one value of 'label'"),
        (lambda t: t.assign(seen=[True] * 7 + [False]), r"gives the batch 'b1' more than one value of 'seen'"),
        (lambda t: t.iloc[:0], "has no rows"),
    ],
)
def test_a_bad_csv_gets_one_sentence(tmp_path, change, message):
    folder = csv_folder(tmp_path, study_rows(2, 2, frames=2))
    change(pd.read_csv(folder / "cells.csv")).to_csv(folder / "cells.csv", index=False)
    with pytest.raises(ValueError, match=message):
        read_cells(folder)


def test_missing_folders_and_files_and_strange_names_get_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no .*nowhere; give a folder of cell images or a CSV"):
        read_cells(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"holds no cell image \(\*\.png, \*\.tif, \*\.tiff\)"):
        read_cells(tmp_path)
    folder = named_folder(tmp_path / "names", [("150312", "m405")])
    (folder / "cell7.png").touch()
    with pytest.raises(ValueError, match=r"1 of 3 file names .* DATE_PDX_.* \(first: cell7\.png\); rename .* CSV"):
        read_cells(folder)
    with pytest.raises(ValueError, match="neither a folder of cell images nor a CSV"):
        read_cells(folder / "cell7.png")
    folder = csv_folder(tmp_path / "table", study_rows(2, 2))
    (folder / "0_1_2.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 12 images of .*cells\.csv do not exist \(first: .*0_1_2\.png"):
        read_cells(folder)


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
    trained = provenance(at_training, at_training["batches"], "cell")
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


@real_cells
def test_the_60_real_images_are_read_divided_and_loaded():
    with pytest.warns(UserWarning, match=r"23 of 60 cell images .* a375 \(1\), a375c1 \(5\)"):
        items = read_cells(CELLS)
    assert len(items) == 60 and len({item["batch"] for item in items}) == 30
    assert [sum(item["label"] == label for item in items) for label in (-1, 0, 1)] == [23, 13, 24]
    with pytest.warns(UserWarning):
        partitions = cell_partitions(CELLS)
    assert len(partitions["batches"]) == 17 and len(partitions["unseen"]) == 13
    train, val, test = (len(partitions[part]) for part in ("train", "val", "test"))
    assert train + val + test == 47 and train in (32, 33, 34) and val in (4, 5)
    assert {item["batch"] for item in partitions["train"]} == set(partitions["batches"])
    load = LoadCelld("image", 64)
    for item in items:
        image = load(item)["image"]
        assert image.shape == (1, 64, 64) and image.dtype == torch.float32
        assert 0 <= image.min() < image.max() <= 1
