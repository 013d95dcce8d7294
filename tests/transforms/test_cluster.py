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

import pickle
import warnings

import pytest

from monai_armed.transforms import ClusterToIndexd


def test_names_become_indices():
    transform = ClusterToIndexd("site", ["002", "005"], output_keys="cluster")
    assert transform({"site": "005", "label": 1}) == {"site": "005", "label": 1, "cluster": 1}
    assert ClusterToIndexd("site", ["002", "005"])({"site": "002"}) == {"site": 0}


def test_unknown_name():
    with pytest.raises(ValueError, match=r"site '9' is not one of the known ones, \['002', '005'\]"):
        ClusterToIndexd("site", ["002", "005"])({"site": "9"})
    assert ClusterToIndexd("site", ["002", "005"], unknown="unknown")({"site": "9"}) == {"site": -1}


@pytest.mark.parametrize("name", ["002", "2", "2.0", " 002", 2, 2.0])
def test_a_name_is_known_in_another_spelling(name):
    for unknown in ("error", "unknown"):
        assert ClusterToIndexd("site", ["005", "002", "Mayo"], unknown)({"site": name}) == {"site": 1}
    assert ClusterToIndexd("site", ["005", "002", "Mayo"])({"site": "mayo"}) == {"site": 2}


def test_a_spelling_of_several_known_names_is_none_of_them():
    transform = ClusterToIndexd("site", ["2", "002"], unknown="unknown")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [transform({"site": name})["site"] for name in ("2", "002", "5")] == [0, 1, -1]
    with pytest.warns(UserWarning, match=r"site '02' may be any of \['2', '002'\], so that it counts as a new one"):
        assert transform({"site": "02"})["site"] == -1


@pytest.mark.parametrize(
    ("clusters", "unknown"), [([], "error"), (["a", "a"], "error"), ("abc", "error"), (["a"], "ignore")]
)
def test_bad_arguments(clusters, unknown):
    with pytest.raises(ValueError, match="must be"):
        ClusterToIndexd("site", clusters, unknown)


def test_pickles():
    transform = pickle.loads(pickle.dumps(ClusterToIndexd("site", ["a"])))
    assert transform({"site": "a"}) == {"site": 0}
