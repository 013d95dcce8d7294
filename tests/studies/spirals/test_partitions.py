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

import numpy as np
import pandas as pd
import pytest

from monai_armed.data.held_out import provenance
from monai_armed.studies.spirals.simulator import read_points, simulate_spirals, spiral_partitions


def test_partitions_divide_each_class_of_each_cluster_alike():
    partitions = spiral_partitions(simulation=3, data_seed=2, split_seed=1)
    rows = [(name, int(d["label"][0]), d["cluster"]) for name in ("train", "val", "test") for d in partitions[name]]
    counts = pd.DataFrame(rows, columns=["part", "label", "cluster"]).value_counts().unstack("part")
    share = counts.div(counts.sum(axis=1), axis=0)
    assert np.allclose(share["train"], 0.8, atol=0.01) and np.allclose(share["test"], 0.1, atol=0.01)
    points = {d["image"].tobytes() for name in ("train", "val", "test") for d in partitions[name]}
    assert points == {x.tobytes() for x in partitions["data"].x}
    other = spiral_partitions(simulation=3, data_seed=2, split_seed=2)
    assert not np.array_equal(other["test"][0]["image"], partitions["test"][0]["image"])


def test_partitions_of_files(tmp_path):
    data = simulate_spirals(2, num_clusters=2, samples_per_cluster=40, seed=1)
    data.save(tmp_path / "sim2.npz")
    partitions = spiral_partitions(tmp_path, simulation=2)
    assert sum(len(partitions[name]) for name in ("train", "val", "test")) == 80
    with pytest.raises(FileNotFoundError, match="no spiral data"):
        spiral_partitions(tmp_path, simulation=1)
    simulate_spirals(1, num_clusters=2, samples_per_cluster=4, seed=1).save(tmp_path / "sim1.npz")
    with pytest.raises(ValueError, match="cluster 0 has 4 points, 20 are needed"):
        spiral_partitions(tmp_path, simulation=1)


def test_a_trained_model_is_tested_on_points_that_it_was_not_trained_on(tmp_path):
    data = simulate_spirals(2, num_clusters=2, samples_per_cluster=40, seed=1)
    data.save(tmp_path / "sim2.npz")
    at_training = spiral_partitions(tmp_path, simulation=2, split_seed=3)
    trained = provenance(at_training)
    assert trained["clusters"] == ["0", "1"] and len(trained["train"]) == 64
    again = spiral_partitions(tmp_path, simulation=2, trained=trained)
    for name in ("train", "val", "test", "unseen"):
        assert [d["index"] for d in again[name]] == [d["index"] for d in at_training[name]]
    assert again["study"] == trained["study"] != spiral_partitions(simulation=2)["study"]
    with pytest.warns(UserWarning, match="the index of .* samples has the name of one"):
        other = spiral_partitions(simulation=2, trained=trained)
    assert len(other["unseen"]) == 10000 and {d["cluster"] for d in other["unseen"]} == {-1}


def test_further_clusters_of_a_simulation_are_there_to_calibrate(tmp_path):
    partitions = spiral_partitions(simulation=3)
    assert "new" not in partitions
    again = spiral_partitions(simulation=3, trained=provenance(partitions))
    names = [point["site"] for point in again["new"]]
    assert len(names) == 4000 and len(set(names)) == 40 and {point["cluster"] for point in again["new"]} == {-1}
    known = {point["image"].tobytes() for name in ("train", "val", "test") for point in partitions[name]}
    assert not known & {point["image"].tobytes() for point in again["new"]}
    simulate_spirals(2, num_clusters=2, samples_per_cluster=40, seed=1).save(tmp_path / "sim2.npz")
    own = provenance(spiral_partitions(tmp_path, simulation=2))
    assert spiral_partitions(tmp_path, simulation=2, trained=own)["new"] == []


def test_points_are_read(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("x2,x1,cluster\n1,2,0\n3,4,-1\n")
    first, second = read_points(path)
    assert first["image"].tolist() == [2, 1] and first["image"].dtype == np.float32
    assert (first["cluster"], second["cluster"]) == (0, -1)
    path.write_text("x1,x2\n1,2\n")
    assert read_points(path)[0]["cluster"] == -1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "columns"),
        ("x1,x2\n1,two\n", "not a number"),
        ("x1,x2\n1,\n", "empty or infinite cells in row 2"),
    ],
)
def test_bad_points_are_named(tmp_path, text, message):
    path = tmp_path / "points.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_points(path)
    with pytest.raises(FileNotFoundError, match="no file of points"):
        read_points(tmp_path / "none.csv")
