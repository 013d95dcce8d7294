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

import zipfile

import pytest
import torch
from ignite.handlers import Checkpoint
from monai.handlers import CheckpointLoader

from monai_armed.bundle.model_file import DISTANCE, RECORD, read_distance, read_record, write_model
from monai_armed.bundle.models import load_model
from monai_armed.networks import DFNN
from monai_armed.networks.training_distance import fit_training_distance

NAMES = ["002", "Zürich"]
SITES = {"clusters": NAMES, "provenance": {"clusters": NAMES}, "features": [{"name": "age", "mean": 0.1}]}


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    network = DFNN(3)
    return network, write_model(network.state_dict(), SITES, tmp_path / "new" / "model.pt")


def test_the_record_travels_in_the_file(model, tmp_path):
    _, path = model
    assert read_record(path) == SITES
    assert [file.name for file in path.parent.iterdir()] == ["model.pt"]
    path.rename(tmp_path / "other.pt")
    assert read_record(tmp_path / "other.pt") == SITES


@pytest.mark.parametrize("options", [{}, {"mmap": True}])
def test_other_tools_read_a_plain_state_dict(model, options):
    network, path = model
    state = torch.load(path, weights_only=True, **options)
    assert state.keys() == network.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())
    other = DFNN(3)
    Checkpoint.load_objects({"": other}, str(path))  # as MONAI's export does
    CheckpointLoader(str(path), {"network": other})  # takes a plain state dict if there is one network
    assert torch.equal(other.head.weight, network.head.weight)


def test_the_same_model_is_the_same_file(model):
    network, path = model
    before = path.read_bytes()
    write_model(network.state_dict(), SITES, path)
    assert path.read_bytes() == before


def test_the_distance_to_the_training_data_travels_in_the_file(model, tmp_path):
    network, path = model
    assert read_distance(path) is None and load_model(DFNN(3), path).training_distance is None
    data = [{"image": torch.randn(50, 3)}]
    distance = fit_training_distance(network, data, data)
    write_model(network.state_dict(), SITES, path, distance)
    before = path.read_bytes()
    loaded, x = load_model(DFNN(3), path), torch.randn(5, 3)
    assert torch.equal(loaded.training_distance(loaded, x), distance(network, x)) and read_record(path) == SITES
    assert loaded.state_dict().keys() == torch.load(path, weights_only=True).keys()  # other tools see weights alone
    write_model(network.state_dict(), SITES, path, distance)
    assert path.read_bytes() == before


def test_a_damaged_distance_gets_a_sentence(model):
    _, path = model
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"model/{DISTANCE}", b"no arrays")
    with pytest.raises(ValueError, match="is damaged, copy or train it again"):
        read_distance(path)


def test_a_diverged_network_is_not_written(model):
    network, path = model
    before = path.read_bytes()
    state = {**network.state_dict(), "head.weight": torch.tensor([1.0, float("nan")])}
    with pytest.raises(ValueError, match=r"head\.weight holds NaN or infinite values"):
        write_model(state, SITES, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("length", [0, 10, 1000, -1])
def test_a_file_that_was_cut_off_is_named(model, length):
    _, path = model
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"model .*model\.pt cannot be read .* it is damaged"):
        read_record(path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"provenance": None}, "lacks provenance"),
        ({"clusters": None, "features": None}, "lacks clusters and features"),
        ({"provenance": [1]}, "has no list of clusters, or no dict as provenance"),
        ({"clusters": "002"}, "has no list of clusters, or no dict as provenance"),
        ({"clusters": NAMES[::-1]}, "has other clusters than its provenance"),
        ({"clusters": NAMES[:1]}, "has other clusters than its provenance"),
    ],
)
def test_a_record_that_is_none(model, change, says):
    network, path = model
    record = {name: value for name, value in {**SITES, **change}.items() if value is not None}
    write_model(network.state_dict(), record, path)
    with pytest.raises(ValueError, match=rf"the record in model .*model\.pt {says}: it is damaged"):
        read_record(path)


def test_a_file_without_a_record_or_none_at_all(model, tmp_path):
    _, path = model
    torch.save(torch.load(path, weights_only=True), path)  # as another program saves it
    with pytest.raises(ValueError, match="has weights, but no record of what it was trained on, which is lost when"):
        read_record(path)
    with pytest.raises(
        FileNotFoundError, match=r"there is no model .*none\.pt: train first, or give .* as --ckpt_path"
    ):
        read_record(tmp_path / "none.pt")
    with zipfile.ZipFile(tmp_path / "odd.pt", "w") as archive:
        archive.writestr(f"archive/{RECORD}", "{")
    with pytest.raises(ValueError, match="it is damaged"):
        read_record(tmp_path / "odd.pt")
