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

import pytest

from monai_armed.bundle import find_bundle
from monai_armed.bundle.config_values import check_values

OWN = {
    "rate": 0.1,
    "batch_size": 16,
    "channels": [4, 4],
    "resume": False,
    "unknown_probability": 0.1,
    "output_dir": "$@root + '/output'",
    "dataset_dir": None,
    "scale": "$1 / 3",
    "outer": {"number": 2, "part": {"_target_": "builtins.dict", "a": 1}},
}


@pytest.fixture
def check(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps(OWN))
    (tmp_path / "volume.json").write_text(json.dumps({"rate": [0.1, 0.2], "outer#number": 3, "batch_size": "$2 * 8"}))

    def with_values(values: dict) -> None:
        check_values({**OWN, **values}, tmp_path)

    return with_values


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"rate": "abc"}, "rate must be a list of numbers or a number, got 'abc'"),
        ({"rate": float("nan")}, "rate must be .* got nan"),
        ({"rate": float("inf")}, "rate must be .* got inf"),
        ({"rate": None}, "rate must be .* got None"),
        ({"rate": True}, "rate must be .* got True"),
        ({"channels": 4}, "channels must be a list of numbers, got 4"),
        ({"channels": [4, "x"]}, r"channels must be a list of numbers, got \[4, 'x'\]"),
        ({"channels": []}, r"channels must be a list of numbers, got \[\]"),
        ({"channels": [4, 0]}, r"channels must be above 0, got \[4, 0\]"),
        ({"batch_size": "nan"}, "batch_size must be a number, got 'nan'"),  # also where another file works it out
        ({"batch_size": -1}, "batch_size must be above 0, got -1"),
        ({"unknown_probability": 2}, "unknown_probability must be from 0 to 1, got 2"),
        ({"resume": "maybe"}, "resume must be true or false, got 'maybe'"),
        ({"output_dir": None}, "output_dir must name a file or folder, got null"),
        ({"outer": {"number": "two"}}, "outer#number must be a number, got 'two'"),
    ],
)
def test_a_value_of_another_kind_is_refused(check, values, sentence):
    with pytest.raises(ValueError, match=sentence):
        check(values)


@pytest.mark.parametrize(
    "values",
    [
        {"rate": 3},
        {"rate": [1, 2]},  # as another file of the bundle has it
        {"rate": "$2 * @scale"},
        {"batch_size": "@other"},
        {"dataset_dir": None},
        {"scale": "abc"},  # whose kind nobody says
        {"unknown": "abc"},
        {"outer": {"number": 1, "part": {"_target_": "builtins.dict", "a": "x"}}},
    ],
)
def test_other_values_are_taken(check, values):
    check(values)


@pytest.mark.parametrize("name", ["armed_ad_mri", "armed_cell_aec", "armed_mci", "armed_spirals"])
def test_the_values_of_our_bundles_are_taken(name):
    configs = find_bundle(name) / "configs"
    for file in configs.glob("*.json"):
        check_values(json.loads(file.read_text()), configs)
