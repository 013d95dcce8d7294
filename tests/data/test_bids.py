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

import warnings

import pandas as pd
import pytest

from monai_armed.data import load_bids_datalist, load_csv_datalist


@pytest.fixture
def tree(tmp_path):
    for place in ("sub-01/anat/sub-01_T1w.nii.gz", "sub-02/ses-a/anat/sub-02_ses-a_T1w.nii"):
        path = tmp_path / place
        path.parent.mkdir(parents=True)
        path.touch()
    (tmp_path / "sub-02" / "ses-b" / "anat").mkdir(parents=True)
    (tmp_path / "sub-02" / "ses-b" / "anat" / "sub-02_ses-b_T1w.nii.gz").touch()
    (tmp_path / "sub-02" / "ses-b" / "anat" / "sub-02_ses-b_T1w.json").touch()
    write(tmp_path, [("sub-01", "002", "AD", "GE"), ("02", "005", "CN", "")])
    return tmp_path


def write(folder, rows, columns=("participant_id", "site", "diagnosis", "manufacturer")):
    pd.DataFrame(rows, columns=list(columns)).to_csv(folder / "participants.tsv", sep="\t", index=False)


def test_reads_sessions_and_optional_columns(tree):
    datalist = load_bids_datalist(tree)
    assert [item["subject"] for item in datalist] == ["sub-01", "sub-02", "sub-02"]
    assert datalist[0] == {
        "image": str(tree / "sub-01/anat/sub-01_T1w.nii.gz"),
        "label": 1,
        "site": "002",
        "subject": "sub-01",
        "session": "",
        "manufacturer": "GE",
    }
    assert [item["session"] for item in datalist] == ["", "ses-a", "ses-b"]
    assert datalist[1]["label"] == 0 and datalist[1]["manufacturer"] == ""


def test_reads_other_columns_and_diagnoses(tree):
    write(tree, [("01", "x", "patient"), ("02", "y", "control")], ("participant_id", "center", "group"))
    datalist = load_bids_datalist(tree, "center", "group", {"control": 0, "patient": 1})
    assert [(item["site"], item["label"]) for item in datalist] == [("x", 1), ("y", 0), ("y", 0)]


def test_participants_without_image_are_counted(tree):
    write(tree, [("01", "2", "AD"), ("07", "2", "CN"), ("08", "2", "CN")], ("participant_id", "site", "diagnosis"))
    with pytest.warns(UserWarning, match="2 of 3 participants .* sub-07"):
        assert len(load_bids_datalist(tree)) == 1


def test_missing_folder_file_and_images(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        load_bids_datalist(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no participants\.tsv"):
        load_bids_datalist(tmp_path)
    write(tmp_path, [("01", "2", "AD", "")])
    with pytest.raises(FileNotFoundError, match="no image"):
        load_bids_datalist(tmp_path)


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([("01", "AD")], ("participant_id", "diagnosis"), "no column 'site'; it has 'participant_id', 'diagnosis'"),
        ([("01", "2", "MCI")], ("participant_id", "site", "diagnosis"), r"unknown values \['MCI'\]"),
        (
            [("01", "2", "AD"), ("02", "n/a", "CN")],
            ("participant_id", "site", "diagnosis"),
            "no 'site' in 1 rows.*line 3",
        ),
        ([], ("participant_id", "site", "diagnosis"), "has no rows"),
        (
            [("01", "2", "AD"), ("02", "2", "CN"), ("01", "2", "CN")],
            ("participant_id", "site", "diagnosis"),
            "more than one row of 1 participants .first: 01.* a CSV with one row an image",
        ),
    ],
)
def test_bad_tables_get_a_sentence(tree, rows, columns, message):
    write(tree, rows, columns)
    with pytest.raises(ValueError, match=message):
        load_bids_datalist(tree)


def test_csv_with_relative_paths(tree):
    file = tree / "list.csv"
    rows = [
        ("sub-01/anat/sub-01_T1w.nii.gz", "1", "002", "a"),
        ("sub-02/ses-a/anat/sub-02_ses-a_T1w.nii", "CN", "5", "b"),
    ]
    pd.DataFrame(rows, columns=["image", "label", "site", "subject"]).to_csv(file, index=False)
    datalist = load_csv_datalist(file)
    assert [(item["label"], item["site"], item["subject"]) for item in datalist] == [(1, "002", "a"), (0, "5", "b")]
    assert datalist[0]["image"] == str(tree / rows[0][0])


def test_csv_errors(tree):
    file = tree / "list.csv"
    with pytest.raises(FileNotFoundError, match=r"list\.csv does not exist"):
        load_csv_datalist(file)
    file.write_text("image,label,subject\na.nii,1,s\n")
    with pytest.raises(ValueError, match="no column 'site'"):
        load_csv_datalist(file)
    file.write_text("image,label,site,subject\na.nii,1,2,s\n")
    with pytest.raises(FileNotFoundError, match=r"1 of 1 images .*a\.nii"):
        load_csv_datalist(file)
    file.write_text("image,label,site,subject\na.nii,3,2,s\n")
    with pytest.raises(ValueError, match=r"unknown values \['3'\]"):
        load_csv_datalist(file)


def test_what_only_some_images_have_is_empty_for_the_others(tree):
    rows = [("01", " 2 ", "AD", "n/a"), ("02", "2", "CN", "GE")]
    write(tree, rows)
    items = load_bids_datalist(tree)
    assert len({tuple(item) for item in items}) == 1  # the same keys, as a batch needs
    assert {item["subject"]: item["manufacturer"] for item in items} == {"sub-01": "", "sub-02": "GE"}
    assert {item["site"] for item in items} == {"2"}


def test_an_image_listed_twice_is_refused(tmp_path):
    (tmp_path / "a.nii").touch()
    table = tmp_path / "twice.csv"
    table.write_text("image,label,site,subject\na.nii,0,1,p1\n./a.nii,0,1,p2\n")
    with pytest.raises(ValueError, match=r"twice.csv lists 1 images twice .first: .*a\.nii"):
        load_csv_datalist(table)


def test_rows_of_other_diagnoses_are_left_out_and_counted(tree):
    rows = [("01", "2", "ad"), ("02", "2", "CN"), ("03", "", "MCI"), ("04", "2", "n/a"), ("05", "2", "MCI")]
    write(tree, rows, ("participant_id", "site", "diagnosis"))
    with pytest.warns(UserWarning, match=r"3 of 5 rows of .*participants\.tsv are left out.*: MCI .2., n/a .1.\."):
        items = load_bids_datalist(tree)
    assert [item["label"] for item in items] == [1, 0, 0]
    write(tree, [("01", "2", "1.0"), ("02", "2", "0.0")], ("participant_id", "site", "diagnosis"))
    assert [item["label"] for item in load_bids_datalist(tree)] == [1, 0, 0]


def test_every_column_can_have_another_name(tree):
    rows = [
        ("1", "Mayo", "Dementia", "sub-01/anat/sub-01_T1w.nii.gz"),
        ("2", "x", "cn", "sub-02/ses-a/anat/sub-02_ses-a_T1w.nii"),
    ]
    table = pd.DataFrame(rows, columns=["who", "where", "what", "which"])
    table.to_csv(tree / "list.csv", index=False)
    columns = {"subject_column": "who", "site_column": "where", "diagnosis_column": "what"}
    diagnoses = {"Dementia": 1, "CN": 0}
    items = load_csv_datalist(tree / "list.csv", image_column="which", diagnoses=diagnoses, **columns)
    assert [(i["subject"], i["site"], i["label"]) for i in items] == [("1", "Mayo", 1), ("2", "x", 0)]
    table.assign(who=["01", "02"]).to_csv(tree / "participants.tsv", sep="\t", index=False)
    items = load_bids_datalist(tree, diagnoses=diagnoses, **columns)
    assert [(i["subject"], i["site"], i["label"]) for i in items] == [
        ("sub-01", "Mayo", 1),
        ("sub-02", "x", 0),
        ("sub-02", "x", 0),
    ]
    with pytest.raises(ValueError, match=r"no column 'site'.*: name yours by site_column, diagnosis_column"):
        load_bids_datalist(tree, subject_column="who", diagnosis_column="what")


@pytest.mark.parametrize("spellings", [("Mayo", "mayo"), ("002", "2"), ("5", "5.0"), ("a", "a ")])
def test_sites_in_two_spellings_are_one(tree, spellings):
    write(tree, [("01", spellings[0], "AD"), ("02", spellings[1], "CN")], ("participant_id", "site", "diagnosis"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len({item["site"] for item in load_bids_datalist(tree)}) == 1
    assert len(caught) == (spellings in [("Mayo", "mayo"), ("002", "2")])


def test_files_that_are_no_scans_are_not_read(tree):
    expected = load_bids_datalist(tree)
    anat = tree / "sub-01" / "anat"
    for name in ("._sub-01_T1w.nii.gz", "sub-01_T1w.nii.gz.part", "sub-01_T1w.nii.json", "sub-01_acq-x_T1w.json"):
        (anat / name).touch()
    (anat / "sub-01_run-2_T1w.nii").mkdir()
    assert load_bids_datalist(tree) == expected
    (anat / "sub-01_T1w.nii").touch()
    with pytest.warns(UserWarning, match=r"1 further T1w images .*sub-01_T1w\.nii\."):
        assert load_bids_datalist(tree) == expected
    (anat / "sub-01_T1w.nii").unlink()
    (anat / "sub-01_T1w.nii.gz").unlink()
    (anat / "sub-01_T1w.nii.gz").symlink_to(tree / "gone.nii.gz")
    with pytest.raises(FileNotFoundError, match=r"1 of \d images .* are links to files that are not there .*sub-01"):
        load_bids_datalist(tree)


def test_a_csv_lists_image_files_alone(tree):
    (tree / "scan.nii").mkdir()
    for name in ("._a.nii", "b.png", "scan.nii"):
        (tree / name).touch()
        (tree / "list.csv").write_text(f"image,label,site,subject\n{name},1,2,s\n")
        with pytest.raises(FileNotFoundError, match=r"1 of 1 images .* do not exist or are no NIfTI files"):
            load_csv_datalist(tree / "list.csv")


@pytest.mark.parametrize("place", ["sub-02/sub-02_sessions.tsv", "sub-02/sessions.tsv", "sessions.tsv"])
def test_a_diagnosis_that_changes_in_sessions_tsv_is_counted(tree, place):
    columns = ["participant_id", "session_id", "diagnosis"]
    table = pd.DataFrame([("02", "ses-a", "CN"), ("02", "ses-b", "n/a")], columns=columns)
    table.to_csv(tree / place, sep="\t", index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_bids_datalist(tree)
    for later in ("AD", "MCI"):
        table.assign(diagnosis=["CN", later]).to_csv(tree / place, sep="\t", index=False)
        with pytest.warns(
            UserWarning, match=rf"1 subjects have another diagnosis in sessions.tsv .* sub-02, {later}\)"
        ):
            load_bids_datalist(tree)
    table.drop(columns="diagnosis").to_csv(tree / place, sep="\t", index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_bids_datalist(tree)


def test_a_volume_is_no_table_of_volumes(tmp_path):
    (tmp_path / "sub-1_T1w.nii.gz").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"sub-1_T1w\.nii\.gz is neither a folder nor a CSV file"):
        load_csv_datalist(tmp_path / "sub-1_T1w.nii.gz")


def test_who_has_another_diagnosis_is_not_said_to_have_no_row(tree):
    table = pd.read_csv(tree / "participants.tsv", sep="\t", dtype=str)
    scanned = [f"sub-{name.removeprefix('sub-')}" for name in table["participant_id"]]
    row = next(k for k, name in enumerate(scanned) if (tree / name).is_dir())
    table.loc[row, "diagnosis"] = "MCI"
    table.to_csv(tree / "participants.tsv", sep="\t", index=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_bids_datalist(tree)
    said = [str(warning.message) for warning in caught]
    assert sum("none of" in sentence and "MCI" in sentence for sentence in said) == 1
    assert not any("no row in" in sentence and scanned[row] in sentence for sentence in said)
