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

import pytest
from monai.bundle import ConfigParser

DATA = {"study": "draw 1", "train": ["a", "b"]}
CONFIG = {
    "output_dir": "out",
    "seed": 0,
    "max_epochs": 5,
    "device": "cpu",
    "lambda": 3.0,
    "unused": 1,
    "channels": [1, 2, 3],
    "network": {"_target_": "torch.nn.Linear", "in_features": "@seed", "out_features": 2},
    "fingerprint": {"_target_": "monai_armed.bundle.fingerprint", "provenance": DATA},
    "training": {
        "_target_": "builtins.dict",
        "folder": "$@output_dir + '/x'",
        "network": "@network",
        "weight": "$2 * @lambda",
        "sizes": "@channels",
        "epochs": "@max_epochs",
        "device": "@device",
    },
}


def fingerprint(**changes) -> dict[str, str]:
    parser = ConfigParser({**CONFIG})
    parser.update(changes)
    return parser.get_parsed_content("fingerprint")


def test_it_names_all_that_training_depends_on():
    found = fingerprint()
    assert found["seed"] == "0" and found["lambda"] == "3.0" and found["network#out_features"] == "2"
    assert found["channels"] == "[1, 2, 3]" and found["the data's study"] == '"draw 1"'
    assert "unused" not in found


def test_what_watches_a_training_is_no_part_of_it():
    """Else a training that MLflow follows, whose artifact has the time in its name, could not be gone on with."""
    tracker = {"_target_": "MLFlowHandler", "artifacts": "@saved"}
    training = {**CONFIG["training"], "handlers": ["@network"]}
    plain = fingerprint(training=training)
    watched = {**training, "handlers": ["@network", tracker]}
    assert fingerprint(training=watched, saved="config_1.json") == plain != fingerprint()


@pytest.mark.parametrize("change", [{"max_epochs": 9}, {"output_dir": "elsewhere"}, {"device": "cuda"}, {"unused": 2}])
def test_how_long_where_and_on_what_it_runs_is_no_other_training(change):
    assert fingerprint(**change) == fingerprint()


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"lambda": 3.5}, "lambda"),
        ({"network#out_features": 3}, "network#out_features"),
        ({"network#bias": False}, "network#bias"),
        ({"channels": [1, 2, 4]}, "channels"),
        ({"fingerprint#provenance#study": "draw 2"}, "the data's study"),
        ({"fingerprint#provenance#train": ["a", "c"]}, "the data's train"),
    ],
)
def test_what_differs_is_named(change, name):
    before, after = fingerprint(), fingerprint(**change)
    assert [key for key in {**before, **after} if before.get(key) != after.get(key)] == [name]
