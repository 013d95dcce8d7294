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

from monai_armed.data.table import check_classes, class_labels, labelled_rows, read_table

TEXT = "file,site,age\na.png,Zürich,1\nb.png,Basel,2\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_is_read_as_people_save_it(tmp_path, encoding, separator):
    (tmp_path / "t.csv").write_bytes(TEXT.replace(",", separator).encode(encoding))
    table = read_table(tmp_path / "t.csv", ["file", "site"])
    assert table.to_dict("list") == {"file": ["a.png", "b.png"], "site": ["Zürich", "Basel"], "age": ["1", "2"]}


def test_blanks_empty_rows_and_the_case_of_columns_do_not_count(tmp_path):
    (tmp_path / "t.csv").write_text("Site , FILE,Seen\n a ,b.png \n,,\n\nc,d.png,1\n")
    table = read_table(tmp_path / "t.csv", ["file", "site"], ["seen"])
    assert table.to_dict("records") == [
        {"site": "a", "file": "b.png", "seen": ""},
        {"site": "c", "file": "d.png", "seen": "1"},
    ]
    (tmp_path / "t.csv").write_text("site,SITE,Site\na,b,c\n")
    assert read_table(tmp_path / "t.csv", ["site"])["site"].tolist() == ["a"]
    with pytest.raises(ValueError, match="no column 'sIte'"):
        read_table(tmp_path / "t.csv", ["sIte"])


def test_the_names_of_rows_that_r_writes_are_no_column(tmp_path):
    (tmp_path / "t.csv").write_text('"site","age"\n"1","a",3\n"2","b",4\n')
    assert read_table(tmp_path / "t.csv", ["site"]).to_dict("list") == {"site": ["a", "b"], "age": ["3", "4"]}


def test_rows_that_repeat_another_are_left_out_and_counted(tmp_path):
    (tmp_path / "t.csv").write_text("site,age\na,1\nb,2\na,1\na, 1\na,2\n")
    with pytest.warns(UserWarning, match=r"t\.csv has 2 rows that repeat another one exactly .first: line 4"):
        assert len(read_table(tmp_path / "t.csv")) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read as a table"),
        ('a,b\n"1,2\n', "cannot be read as a table"),
        ("a,b\n1,2\n1,2,3,4\n", "cannot be read as a table"),
        ("site,age\n", "has no rows"),
        ("site,age\n,\n", "has no rows"),
        ("site,age\na,1\n", "has no column 'file'; it has 'site', 'age': name it"),
    ],
)
def test_what_is_no_table_gets_one_sentence(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"t\.csv {message}"):
        read_table(tmp_path / "t.csv", ["file"], hint="name it.")


def test_classes_are_told_by_word_or_label_in_any_case():
    known = {"CN": 0, "AD": 1}
    assert class_labels(["CN", "cn ", "0", "0.0", "False"], known) == [0] * 5
    assert class_labels(["AD", "ad", "1", "1.0", "TRUE", "01"], known) == [1] * 6
    assert class_labels(["MCI", "", "nan", "2", "-1"], known) == [None] * 5
    assert class_labels(["True", "2", "b"], {"a": 0, "b": 1, "c": 2}) == [None, 2, 1]  # three classes have no True
    assert class_labels(["a", "A"], {"a": 0, "A": 1}) == [0, 1]  # exactly, where case tells


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["CN", "AD"], r"diagnoses must say which word is 0 and which 1, .* got \['CN', 'AD'\]"),
        ("AD", "diagnoses must say .* got 'AD'"),
        ({"CN": 0, "AD": 2}, "diagnoses must give 0 or 1 for each word, got {'AD': 2}"),
        ({"CN": 0, "AD": "1"}, "for each word, got {'AD': '1'}"),
    ],
)
def test_words_that_are_not_given_as_two_classes_get_a_sentence(classes, message):
    with pytest.raises(ValueError, match=message):
        check_classes(classes)
    check_classes(None)
    check_classes({"CN": 0, "MCI": 0, "AD": 1})


def test_rows_with_another_diagnosis_are_left_out_and_counted():
    table = pd.DataFrame({"dx": ["AD", "MCI", "cn", "", "MCI", "n/a"]})
    with pytest.warns(UserWarning, match=r"4 of 6 rows of t\.tsv .* none of CN, AD: MCI .2., empty .1., n/a .1.\."):
        found = labelled_rows(table, "dx", {"CN": 0, "AD": 1}, "t.tsv")
    assert found["class"].tolist() == [1, 0] and found.index.tolist() == [0, 2]
    with pytest.raises(ValueError, match=r"t\.tsv has in column 'dx' only unknown values .'MCI'.; known are Dementia"):
        labelled_rows(table[table["dx"] == "MCI"], "dx", {"Dementia": 1}, "t.tsv")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(labelled_rows(table[:1], "dx", {"AD": 1}, "t.tsv")) == 1
