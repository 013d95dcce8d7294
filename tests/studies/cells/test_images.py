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
from pathlib import Path

import pandas as pd
import pytest
import torch
from cell_folders import NAME, csv_folder, named_folder, study_rows

from monai_armed.studies.cells import METASTATIC_EFFICIENCY, cell_partitions, cells_to_predict, read_cells
from monai_armed.transforms import LoadCelld

TEST_DATA = Path(os.environ.get("MONAI_ARMED_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))
CELLS = TEST_DATA / "cells"
real_cells = pytest.mark.skipif(not CELLS.is_dir(), reason=f"the 60 real images of the melanoma set are not in {CELLS}")


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
    with pytest.raises(ValueError, match=r"labels must give 0 or 1 for each word, got {'um12': 2}"):
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
        (
            lambda t: t.drop(columns="label"),
            "no column 'label'; it has 'file', 'batch', .*: name yours by",
        ),
        (lambda t: t.assign(label="none"), r"unknown values \['none'\] in column 'label'; .*: say by diagnoses"),
        (lambda t: t.assign(seen="maybe"), r"unknown values \['maybe'\] in column 'seen'"),
        (lambda t: t.assign(frame="1.5"), r"frame '1.5' in line 2; frames are whole numbers"),
        (lambda t: t.assign(batch=""), r"no file or no batch in 8 rows \(first: line 2\)"),
        (lambda t: t.assign(file=t["file"][0]), "names the file '0_0_0.png' again in line 3"),
        (
            lambda t: t.assign(file=[t["file"][0], "./" + t["file"][0], *t["file"][2:]]),
            "file './0_0_0.png' again",
        ),
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


def plate(**columns) -> list[dict]:
    wells = ["A01", "A01", "B02", "B02"]
    return [
        {"file": f"{i}.png", "plate": "P1", "well": well, "batch": "b", "cell": str(i % 2), "label": int(well == "A01")}
        | columns
        for i, well in enumerate(wells)
    ]


def test_a_plates_cells_are_numbered_anew_in_each_well(tmp_path):
    items = read_cells(csv_folder(tmp_path / "cells", plate()))
    assert [item["cell"] for item in items] == ["P1_A01_0", "P1_A01_1", "P1_B02_0", "P1_B02_1"]
    assert [item["label"] for item in items] == [1, 1, 0, 0]  # which one cell of a batch may not differ in
    assert {item["batch"] for item in read_cells(tmp_path / "cells", site_column="plate")} == {"P1"}
    folder = csv_folder(tmp_path / "no_cell", [{k: v for k, v in row.items() if k != "cell"} for row in plate()])
    assert [item["cell"] for item in read_cells(folder)] == ["0.png", "1.png", "2.png", "3.png"]
    folder = csv_folder(tmp_path / "one_empty", plate(well="NA", label=0)[::3])
    assert [item["cell"] for item in read_cells(folder)] == ["P1_0", "P1_1"]


def test_images_to_predict_need_no_label(tmp_path):
    rows = [{k: v for k, v in row.items() if k != "label"} for row in plate()]
    folder = csv_folder(tmp_path, rows)
    assert [item["label"] for item in cells_to_predict(folder)] == [-1] * 4
    with pytest.raises(ValueError, match="no column 'label'"):
        read_cells(folder)


def test_of_images_to_predict_one_that_is_missing_is_left_to_the_loader_and_all_are_an_error(tmp_path):
    folder = csv_folder(tmp_path, plate())
    (folder / "0.png").unlink()
    assert len(cells_to_predict(folder)) == 4
    for image in folder.glob("*.png"):
        image.unlink()
    with pytest.raises(FileNotFoundError, match=r"4 of 4 images of .* do not exist"):
        cells_to_predict(folder)


def test_images_in_folders_below_are_counted_where_there_are_none_else(tmp_path):
    named_folder(tmp_path / "Plate01" / "B02", [("150312", "m405")])
    with pytest.raises(FileNotFoundError, match=r"no cells\.csv itself; for the 2 in folders below give a CSV"):
        read_cells(tmp_path)


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


@pytest.mark.parametrize(
    ("words", "labels"),
    [
        (["1.0", "0.0", "nan", ""], [1, 0, -1, -1]),
        (["True", "False", "NA", "<NA>"], [1, 0, -1, -1]),
        (["High", "low ", "-1", "-1.0"], [1, 0, -1, -1]),
    ],
)
def test_labels_as_pandas_writes_them(tmp_path, words, labels):
    rows = [{"file": f"{k}.png", "batch": "b", "label": word} for k, word in enumerate(words)]
    assert [item["label"] for item in read_cells(csv_folder(tmp_path, rows))] == labels


def test_words_of_ones_own_for_the_labels(tmp_path):
    words = ["metastatic", "Benign", "unclear", "", "unclear", "1"]
    folder = csv_folder(tmp_path, [{"file": f"{k}.png", "batch": "b", "label": word} for k, word in enumerate(words)])
    with pytest.warns(UserWarning, match=r"2 of 6 cell images .* none of metastatic, benign.*: unclear \(2\)"):
        items = read_cells(folder, diagnoses={"metastatic": 1, "benign": 0})
    assert [item["label"] for item in items] == [1, 0, -1, -1, -1, 1]
    with pytest.raises(ValueError, match=r"diagnoses must give 0 or 1 for each word, got {'benign': 2}"):
        read_cells(folder, diagnoses={"benign": 2})


def test_columns_of_ones_own(tmp_path):
    rows = study_rows(2, 2)
    expected = read_cells(csv_folder(tmp_path, rows))
    names = {"file": "path", "batch": "day", "label": "group", "cell": "id"}
    pd.DataFrame(rows).rename(columns=names).to_csv(tmp_path / "own.csv", index=False)
    columns = {"image_column": "path", "site_column": "day", "diagnosis_column": "group", "subject_column": "id"}
    assert read_cells(tmp_path / "own.csv", **columns) == expected
    pd.DataFrame(rows).assign(group=1).to_csv(tmp_path / "own.csv", index=False)
    assert {item["label"] for item in read_cells(tmp_path / "own.csv", diagnosis_column="group")} == {1}
    items = read_cells(tmp_path / "own.csv", site_column="pdx", subject_column="file")
    assert items[0]["batch"] == "p0" and items[0]["cell"] == "0_0_0.png"
    with pytest.raises(ValueError, match="no column 'id'"):
        read_cells(tmp_path / "own.csv", subject_column="id")


def test_blanks_and_spellings_of_names_do_not_part_a_batch_or_a_cell(tmp_path):
    rows = [
        {"file": "a.png", "batch": "day 1", "label": 1, "cell": 1.0, "frame": 0.0},
        {"file": "b.png ", "batch": "day 1 ", "label": 1, "cell": 1.0, "frame": 1.0},
        {"file": "c.png", "batch": "Day 1", "label": 1, "cell": 1.0, "frame": None},
        {"file": "d.png", "batch": "day/1", "label": 0, "cell": None, "frame": None},
    ]
    for name in "abcd":
        (tmp_path / f"{name}.png").touch()
    pd.DataFrame(rows).to_csv(tmp_path / "cells.csv", index=False)
    with pytest.warns(UserWarning, match=r"writes 1 names of a batch in more than one way .'day 1' and 'Day 1'"):
        items = read_cells(tmp_path)
    assert [(i["batch"], i["cell"], i["frame"]) for i in items] == [
        ("day 1", "1", 0),
        ("day 1", "1", 1),
        ("day 1", "1", 0),
        ("day/1", "d.png", 0),
    ]


def test_files_that_are_no_images_are_not_read(tmp_path):
    folder = named_folder(tmp_path / "names", [("150312", "m405")])
    expected = read_cells(folder)
    for name in ("._" + NAME.format(batch="150312", pdx="m405", x=0, frame=0), ".DS_Store", "cell.png.part", "a.json"):
        (folder / name).touch()
    (folder / "more.png").mkdir()
    assert read_cells(folder) == expected
    folder = csv_folder(tmp_path / "table", [{"file": "._a.png", "batch": "b", "label": 1}])
    with pytest.raises(FileNotFoundError, match=r"1 of 1 images .* \(first: .*\._a\.png"):
        read_cells(folder)


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
