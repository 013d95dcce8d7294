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

"""The reader of ADNIMERGE.csv, on the simulated table and on what real tables get wrong."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from monai_armed.studies.mci.adnimerge import NUMBERS, conversion_subjects, parse_adnimerge, read_adnimerge
from monai_armed.studies.mci.simulator import simulate_conversion

TABLE = simulate_conversion(3).table.astype(str).iloc[:600]


def changed(row: int, column: str, value: str) -> pd.DataFrame:
    table = TABLE.copy()
    table.loc[row, column] = value
    return table


def test_a_subject_is_read_as_it_stands_in_the_file(tmp_path):
    TABLE.to_csv(tmp_path / "ADNIMERGE.csv", index=False)
    subjects = conversion_subjects(read_adnimerge(tmp_path / "ADNIMERGE.csv"))
    assert len(subjects) == TABLE["RID"].nunique() and len(NUMBERS) == 27
    last = TABLE[TABLE["VISCODE"] == "m24"].set_index("PTID")
    assert (subjects.set_index("subject")["label"] == (last["DX"] == "Dementia")).all()
    row = TABLE[(TABLE["VISCODE"] == "bl") & (TABLE["Hippocampus_bl"] != "")].iloc[0]
    read = subjects.set_index("subject").loc[row["PTID"]]
    assert read["site"] == row["SITE"] and read["Hippocampus_bl"] == float(row["Hippocampus_bl"])
    assert read["PTGENDER"] == row["PTGENDER"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_table_as_spreadsheets_save_it(encoding, tmp_path):
    TABLE.to_csv(tmp_path / "table.csv", index=False, encoding=encoding)
    pd.testing.assert_frame_equal(read_adnimerge(tmp_path / "table.csv"), parse_adnimerge(TABLE, "t"))


def test_missing_values_unknown_categories_and_laboratory_bounds():
    table = parse_adnimerge(changed(0, "ABETA_bl", ">1700"), "t")
    assert table["ABETA_bl"][0] == 1700
    assert np.isnan(parse_adnimerge(changed(0, "TAU_bl", ""), "t")["TAU_bl"][0])
    assert parse_adnimerge(changed(0, "PTRACCAT", "Unknown"), "t")["PTRACCAT"].isna()[0]
    assert parse_adnimerge(TABLE.drop(columns="FDG_bl"), "t")["FDG_bl"].isna().all()


def test_only_mci_with_a_diagnosis_at_the_follow_up_counts():
    table = TABLE.copy()
    first, second = table["RID"].unique()[:2]
    table.loc[table["RID"] == first, "DX_bl"] = "CN"
    table.loc[(table["RID"] == second) & (table["VISCODE"] == "m24"), "DX"] = ""
    subjects = conversion_subjects(parse_adnimerge(table, "t"))
    assert len(subjects) == TABLE["RID"].nunique() - 2


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (TABLE.drop(columns="SITE"), r"lacks the columns \['SITE'\]"),
        (changed(4, "SITE", ""), "no SITE in line 6"),
        (changed(2, "AGE", "old"), "'old' as AGE in line 4, which is no number"),
        (pd.concat([TABLE, TABLE.iloc[:1]]), "twice, again in line 602"),
        (TABLE.iloc[:0], "no rows"),
    ],
)
def test_a_bad_table_gets_one_sentence(table, message):
    with pytest.raises(ValueError, match=message):
        parse_adnimerge(table, "t")


@pytest.mark.parametrize(
    ("visits", "message"),
    [("bl", "no subject has a baseline visit"), ("stable", "have the label 0")],
)
def test_a_table_without_study_gets_one_sentence(visits, message):
    table = TABLE[TABLE["VISCODE"] == "bl"] if visits == "bl" else TABLE.assign(DX="MCI")
    with pytest.raises(ValueError, match=message):
        conversion_subjects(parse_adnimerge(table, "t"))


def test_two_rids_with_one_ptid_are_refused():
    table = TABLE.copy()
    table["PTID"] = table["PTID"].where(table["RID"] != table["RID"].unique()[1], table["PTID"].iloc[0])
    with pytest.raises(ValueError, match="belongs to two RIDs"):
        conversion_subjects(parse_adnimerge(table, "t"))


def test_a_file_that_is_no_table(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no table"):
        read_adnimerge(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes("RID,SITE\n1,Zürich\n".encode("latin-1"))
    with pytest.raises(ValueError, match="not in UTF-8 or UTF-16: save it"):
        read_adnimerge(tmp_path / "latin.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match="no CSV table"):
        read_adnimerge(tmp_path / "empty.csv")
