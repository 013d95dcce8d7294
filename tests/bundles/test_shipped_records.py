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

"""What the shipped weights say that they were trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from monai_armed.bundle import read_record
from monai_armed.bundle.model_file import read_distance
from monai_armed.data.held_out import held_out

BUNDLES = Path(__file__).parents[2] / "bundles"
KEYS = {"clusters": "clusters", "cluster": "cluster", "subject": "subject"}


NAMES = ["armed_ad_mri", "armed_cell_aec", "armed_mci", "armed_spirals"]


@pytest.mark.parametrize("bundle", NAMES)
def test_shipped_weights_know_the_distance_to_their_training_data(bundle):
    distance = read_distance(BUNDLES / bundle / "models" / "model.pt")
    assert distance is not None and 2 < distance.threshold < 10 and len(distance.layers) > 2


def test_the_mci_model_knows_the_words_of_its_categories():
    features = read_record(BUNDLES / "armed_mci" / "models" / "model.pt")["features"]
    known = {column["column"]: column["known"] for column in features if "known" in column}
    assert known["PTGENDER"] == ["Female", "Male"] and "Widowed" in known["PTMARRY"]


@pytest.mark.parametrize("bundle", NAMES)
def test_shipped_weights_are_of_the_network_of_inference(bundle):
    parser = ConfigParser()
    parser.read_config(str(BUNDLES / bundle / "configs" / "inference.json"))
    parser["bundle_root"] = str(BUNDLES / bundle)
    assert next(parser.get_parsed_content("network").parameters()).isfinite().all()


@pytest.mark.parametrize("bundle", NAMES)
def test_shipped_weights_know_their_own_subjects_and_no_others(bundle):
    whole = read_record(BUNDLES / bundle / "models" / "model.pt")
    record = whole["provenance"]
    assert record["clusters"] == whole["clusters"]
    pairs = record["train"] + record["val"] + [[record["clusters"][0], "a new one"]]
    items = [{"cluster": c, "subject": s, "content": f"{c} {s}", "image": ""} for c, s in pairs]
    own = held_out(items, record, record["study"], KEYS)
    assert [len(own[part]) for part in own] == [len(record["train"]), len(record["val"]), 1, 0]
    with pytest.warns(UserWarning, match="but other data"):
        other = held_out(items, record, "data of another hospital", KEYS)
    assert len(other["unseen"]) == len(items)
