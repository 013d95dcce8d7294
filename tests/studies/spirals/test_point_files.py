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
import pytest

from monai_armed.studies.spirals.point_files import read_arrays, read_table
from monai_armed.studies.spirals.simulator import SpiralData, simulate_spirals

NAMES = ("x", "y", "cluster", "radius", "class0_ratio")


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    data = simulate_spirals(1, num_clusters=3, samples_per_cluster=20, seed=1)
    return {name: getattr(data, name) for name in NAMES}


def test_types_are_those_of_the_simulator_however_they_were_saved(arrays, tmp_path):
    kinds = {"x": np.float64, "y": np.int8, "cluster": np.float32}
    np.savez(tmp_path / "a.npz", **{name: a.astype(kinds.get(name, a.dtype)) for name, a in arrays.items()})
    read = read_arrays(tmp_path / "a.npz", NAMES)
    for name in ("x", "y", "cluster"):
        assert read[name].dtype == arrays[name].dtype
        np.testing.assert_array_equal(read[name], arrays[name])


def test_a_cluster_without_points_is_no_fault(arrays, tmp_path):
    arrays["cluster"] = np.where(arrays["cluster"] == 1, 2, arrays["cluster"])
    np.savez(tmp_path / "a.npz", **arrays)
    assert set(SpiralData.load(tmp_path / "a.npz").cluster) == {0, 2}


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("x", lambda x: np.where(x > 0.5, np.nan, x), r"x has \d+ values that are NaN or infinite"),
        ("radius", lambda r: r * np.inf, "radius has 3 values"),
        ("x", lambda x: x.astype("U8"), "x holds <U8, not numbers"),
        ("x", lambda x: x[:, 0], r"x must hold two features .* got the shape \(60,\)"),
        ("x", lambda x: x[:0], "x holds no points"),
        ("y", lambda y: y[:50], r"y must have an entry for each of the 60 points, got the shape \(50,\)"),
        ("y", lambda y: y + np.arange(60) % 2, r"y must hold the classes 0 and 1, both of them, got \[0, 1, 2\]"),
        ("y", lambda y: 0 * y, r"y must hold the classes 0 and 1, both of them, got \[0\]"),
        ("cluster", lambda c: c + 0.5, "cluster must hold whole numbers, got 0.5"),
        ("cluster", lambda c: 0 * c, "all points are of the cluster 0"),
        ("cluster", lambda c: c - 1, "cluster holds -1 to 1, which must be 0 to 2"),
        ("cluster", lambda c: c + 1, "cluster holds 1 to 3, which must be 0 to 2"),
        ("cluster", lambda c: np.where(np.arange(60) < 2, 1, c), "cluster 0 has 18 points, 20 are needed"),
    ],
)
def test_arrays_that_are_no_points_are_named(name, change, words, arrays, tmp_path):
    np.savez(tmp_path / "a.npz", **{**arrays, name: change(arrays[name])})
    with pytest.raises(ValueError, match=f"a.npz': {words}"):
        read_arrays(tmp_path / "a.npz", NAMES)


def test_damaged_archives_and_objects_are_refused(arrays, tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **{**arrays, "y": np.array([object()] * 60)})
    with pytest.raises(ValueError, match=r"cannot be read .* holds objects in place of numbers"):
        read_arrays(path, NAMES)
    np.savez_compressed(path, **arrays)
    content = bytearray(path.read_bytes())
    content[100:140] = bytes(40)
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"cannot be read .* it is damaged"):
        read_arrays(path, NAMES)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is no CSV table"),
        (b"x1,x2\n", "has no rows"),
        (b"x1;x2\n1;2\n", "x1 and x2 are needed"),
        ("x1,x2\n1,2\n".encode("utf-16"), "no CSV table in UTF-8"),
        (b"x1,x2\n1,2,3,4\n", "is no CSV table"),
        (b"PK\x03\x04" + bytes(range(256)), "is no CSV table"),
        (b"x1,x2\n1,two\n", "not a number"),
        (b"x1,x2\n1,1e300\n", "infinite cells in row 2"),
        (b"x1,x2,cluster\n1,2,1.5\n", "the cluster 1.5"),
        (b"x1,x2,cluster\n1,2,one\n", "not a number"),
    ],
)
def test_tables_that_are_no_points_are_named(content, words, tmp_path):
    path = tmp_path / "points.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_table(path)


def test_a_cluster_may_be_known_of_some_points_only(tmp_path):
    path = tmp_path / "points.csv"
    path.write_bytes("x1,x2,cluster\n1,2,1\n3,4,\n".encode("utf-8-sig"))
    x, cluster = read_table(path)
    assert x.tolist() == [[1, 2], [3, 4]] and cluster.tolist() == [1, -1]
