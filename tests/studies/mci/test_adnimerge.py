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


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_a_table_as_spreadsheets_save_it(encoding, tmp_path):
    table = changed(0, "PTMARRY", "Früher verheiratet")
    table.to_csv(tmp_path / "table.csv", index=False, encoding=encoding)
    found, expected = read_adnimerge(tmp_path / "table.csv"), parse_adnimerge(table, "t")
    assert found.astype(object).fillna("").astype(str).equals(expected.astype(object).fillna("").astype(str))


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
        (changed(2, "AGE", "old"), "'old' as AGE in line 4, which is no number"),
        (changed(2, "AGE", "-7"), "'-7' as AGE in line 4, which cannot be negative"),
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
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match="cannot be read as a table"):
        read_adnimerge(tmp_path / "empty.csv")


def outcome(table: pd.DataFrame) -> tuple[int, int]:
    """Subjects and converters."""
    subjects = conversion_subjects(parse_adnimerge(table, "t"))
    return len(subjects), int(subjects["label"].sum())


M24 = TABLE.index[TABLE["VISCODE"] == "m24"]
CONVERTED = TABLE.index[(TABLE["VISCODE"] == "m24") & (TABLE["DX"] == "Dementia")]


@pytest.mark.parametrize("code", ["", "NA", "nan", "NaN", "n/a", "-4", "-1", "-4.0", "None", "Unknown", " "])
def test_a_missing_diagnosis_is_no_diagnosis(code):
    gone = M24[::5]
    table = TABLE.copy()
    table.loc[gone, "DX"] = code
    subjects, converters = outcome(TABLE)
    assert outcome(table) == (subjects - len(gone), converters - len(set(gone) & set(CONVERTED)))


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("MCI to Dementia", "Dementia"),
        ("NL to Dementia", "Dementia"),
        ("mci TO dementia", "Dementia"),
        ("dementia", "Dementia"),
        ("AD", "Dementia"),
        ("Dementia to MCI", "MCI"),
        ("MCI to NL", "MCI"),
        ("nl", "MCI"),
        ("CN", "MCI"),
    ],
)
def test_a_diagnosis_counts_by_its_later_state_in_any_case(word, state):
    table, expected = TABLE.copy(), TABLE.copy()
    table.loc[M24[::3], "DX"], expected.loc[M24[::3], "DX"] = word, state
    assert outcome(table) == outcome(expected)


def test_groups_at_baseline_are_told_in_any_case():
    assert outcome(TABLE.assign(DX_bl=TABLE["DX_bl"].str.lower(), VISCODE=TABLE["VISCODE"].str.upper())) == outcome(
        TABLE
    )


def test_an_unknown_diagnosis_is_an_error_that_counts_it():
    table = TABLE.copy()
    table.loc[M24[:12], "DX"] = "Probable AD"
    table.loc[M24[12:15], "DX"] = "MCI to Demenz"
    with pytest.raises(ValueError, match="DX has unknown diagnoses, 'Probable AD' in 12 rows, 'MCI to Demenz' in 3"):
        outcome(table)
    with pytest.raises(ValueError, match=r"DX_bl has unknown diagnoses, 'MCI\?' in 600 rows: .* correct them\."):
        outcome(TABLE.assign(DX_bl="MCI?"))


def test_words_of_ones_own_for_the_outcome():
    table = TABLE.replace({"DX": {"Dementia": "progressed", "MCI": "stable"}})
    table.loc[M24[:4], "DX"] = "lost"
    with pytest.warns(UserWarning, match=r"4 of 200 subjects are left out, .*: lost \(4\)"):
        subjects = conversion_subjects(parse_adnimerge(table, "t"), diagnoses={"Progressed": 1, "stable": 0})
    gone = set(M24[:4]) & set(CONVERTED)
    assert (len(subjects), subjects["label"].sum()) == (196, len(CONVERTED) - len(gone))
    subjects = conversion_subjects(parse_adnimerge(TABLE, "t"), diagnoses={"Dementia": 1, "MCI": 0})
    assert len(subjects) == 200
    with pytest.raises(ValueError, match="diagnoses must give 0 or 1"):
        conversion_subjects(parse_adnimerge(table, "t"), diagnoses={"Dementia": 2})


@pytest.mark.parametrize("column", ["AGE", "MMSE_bl", "ABETA_bl"])
@pytest.mark.parametrize("code", ["-4", "-1", "-4.0", "NA", "-9999", "unknown"])
def test_codes_for_a_missing_number(column, code):
    assert np.isnan(parse_adnimerge(changed(0, column, code), "t")[column][0])


def test_differences_may_be_negative():
    for column in ("RAVLT_forgetting_bl", "RAVLT_learning_bl", "mPACCdigit_bl"):
        assert parse_adnimerge(changed(0, column, "-4"), "t")[column][0] == -4
        assert np.isnan(parse_adnimerge(changed(0, column, "-9999"), "t")[column][0])


def test_categories_are_missing_or_one_in_any_spelling():
    for code in ("NA", "-4", "unknown", ""):
        assert parse_adnimerge(changed(0, "PTGENDER", code), "t")["PTGENDER"].isna()[0]
    with pytest.warns(UserWarning, match="names of a PTGENDER in more than one way"):
        table = parse_adnimerge(changed(0, "PTGENDER", "male"), "t")
    assert set(table["PTGENDER"]) == {"Male", "Female"}


def test_what_is_wrong_in_visits_that_are_not_used_does_not_count():
    table = changed(1, "SITE", "")  # m12
    twice = table[table["VISCODE"] == "m12"].iloc[:1].assign(AGE="99")
    assert outcome(pd.concat([table, twice], ignore_index=True)) == outcome(TABLE)
    with pytest.raises(ValueError, match=r"1 subjects have no SITE at baseline \(first: line 5\)"):
        outcome(changed(3, "SITE", "NA"))
    for row, visit in ((0, "bl"), (2, "m24")):
        again = pd.concat([TABLE, TABLE.iloc[[row]].assign(AGE="99")], ignore_index=True)
        with pytest.raises(ValueError, match=rf"has the visit {visit} twice, again in line 602: keep one row"):
            outcome(again)


def test_rows_that_repeat_another_exactly_are_left_out(tmp_path):
    pd.concat([TABLE, TABLE.iloc[:30]]).to_csv(tmp_path / "t.csv", index=False)
    with pytest.warns(UserWarning, match=r"30 rows that repeat another one exactly .first: line 602"):
        table = read_adnimerge(tmp_path / "t.csv")
    assert outcome(TABLE)[0] == len(conversion_subjects(table))


def test_sites_and_subjects_as_pandas_writes_them():
    table = TABLE.assign(SITE=TABLE["SITE"] + ".0", RID=[f"{r}.0" if i % 3 else r for i, r in enumerate(TABLE["RID"])])
    pd.testing.assert_frame_equal(
        conversion_subjects(parse_adnimerge(table, "t")), conversion_subjects(parse_adnimerge(TABLE, "t"))
    )


def test_columns_of_ones_own(tmp_path):
    TABLE.rename(columns={"DX": "state", "SITE": "centre", "PTID": "who"}).to_csv(tmp_path / "t.csv", index=False)
    columns = {"diagnosis_column": "state", "site_column": "centre", "subject_column": "who"}
    subjects = conversion_subjects(read_adnimerge(tmp_path / "t.csv", **columns))
    assert subjects["subject"].tolist() == conversion_subjects(parse_adnimerge(TABLE, "t"))["subject"].tolist()
    with pytest.raises(ValueError, match="no column 'center'"):
        read_adnimerge(tmp_path / "t.csv", site_column="center")


def test_codes_of_nines_far_from_everything_are_refused():
    assert parse_adnimerge(changed(0, "AGE", "99"), "t")["AGE"].max() == 99  # a person of that age
    for code in ("999", "9999"):
        table = TABLE.assign(AGE=TABLE["AGE"].where([i % 5 > 0 for i in range(len(TABLE))], code))
        with pytest.raises(ValueError, match=rf"'t' has {code} as AGE in 120 rows, far from all others"):
            parse_adnimerge(table, "t")
