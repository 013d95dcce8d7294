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

import numpy as np
import pytest

from monai_armed.transforms import EncodeRow, EncodeRowd

ROWS = [
    {"age": 60.0, "sex": "f", "race": "a", "csf": float("nan"), "site": 1.0},
    {"age": 70.0, "sex": "m", "race": "b", "csf": float("nan"), "site": 1.0},
    {"age": 80.0, "sex": "m", "race": None, "csf": float("nan"), "site": 1.0},
    {"age": float("nan"), "sex": None, "race": "c", "csf": float("nan"), "site": 1.0},
]
FEATURES = {"age": None, "sex": ["m"], "race": ["a", "b"], "csf": None, "site": None}


def test_numbers_are_standardised_categories_centred_and_missing_values_zero():
    encode = EncodeRow.fit(ROWS, FEATURES)
    assert encode.names == ["age", "sex=m", "race=a", "race=b", "csf", "site"]
    rows = np.stack([encode(row) for row in ROWS])
    assert rows.dtype == np.float32
    assert rows[:, 0] == pytest.approx([-np.sqrt(1.5), 0, np.sqrt(1.5), 0])
    assert rows[:, 1] == pytest.approx([-2 / 3, 1 / 3, 1 / 3, 0])
    assert rows[:, 2] == pytest.approx([2 / 3, -1 / 3, 0, -1 / 3])
    assert not rows[:, 4:].any()  # never measured; constant


def test_what_was_not_measured_in_training_says_nothing_later():
    encode = EncodeRow.fit(ROWS, FEATURES)
    new = encode({"age": 70.0, "sex": "m", "race": "z", "csf": 5.0, "site": 9.0})
    assert new[4] == new[5] == 0 and new[2:4] == pytest.approx([-1 / 3, -1 / 3])


def test_it_is_learned_from_the_given_rows_alone():
    first, both = EncodeRow.fit(ROWS[:2], FEATURES), EncodeRow.fit(ROWS, FEATURES)
    assert first.columns[0]["mean"] == 65 and both.columns[0]["mean"] == 70


def test_it_is_kept_as_json(tmp_path):
    encode = EncodeRow.fit(ROWS, FEATURES)
    again = EncodeRow.load(encode.save(tmp_path / "features.json"))
    assert all(np.array_equal(again(row), encode(row)) for row in ROWS)
    json.loads((tmp_path / "features.json").read_text(), parse_constant=pytest.fail)  # no NaN or Infinity, no JSON
    with pytest.raises(FileNotFoundError, match="is --ckpt_path right"):
        EncodeRow.load(tmp_path / "none.json")


def test_errors():
    with pytest.raises(ValueError, match="no training rows"):
        EncodeRow.fit([], FEATURES)
    with pytest.raises(ValueError, match="lacks 'sex'"):
        EncodeRow.fit(ROWS, FEATURES)({"age": 1.0})
    for wrong in (None, [], [1, 2], [{"name": "age"}]):
        with pytest.raises(ValueError, match="features must be a list of dicts with category, column, mean, name, w"):
            EncodeRow(wrong)


def test_the_dictionary_version():
    encode = EncodeRow.fit(ROWS, FEATURES)
    data = EncodeRowd("image", encode)({"image": ROWS[0], "label": 1})
    assert np.array_equal(data["image"], encode(ROWS[0])) and data["label"] == 1
