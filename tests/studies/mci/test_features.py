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
"""Scales that hospitals agree on are held against each hospital's own table."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from monai_armed.studies.mci import agreed_features, fit_features, mci_partitions


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    return mci_partitions(data_seed=4)


def of_hospital(parts: Mapping[str, Any], column: str, change: Callable[[Any], Any]) -> dict[str, Any]:
    """The partitions of a hospital whose table has other values in a column."""
    return {
        name: [{**item, "image": {**item["image"], column: change(item["image"][column])}} for item in parts[name]]
        for name in ("train", "val", "test", "unseen")
    }


@pytest.fixture(scope="module")
def agreed(tmp_path_factory):
    return fit_features(mci_partitions(data_seed=3)).save(tmp_path_factory.mktemp("agreed") / "features.json")


def test_a_hospital_of_the_same_kind_has_the_agreed_scales_without_a_word(parts, agreed):
    encode = fit_features(mci_partitions(data_seed=3))
    sites = mci_partitions(data_seed=4)["sites"]
    few = {name: [i for i in parts[name] if i["site"] in sites[:2]] for name in ("train", "val", "test", "unseen")}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for own in (parts, few):
            assert agreed_features(own, agreed).columns == encode.columns


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [
        ("Hippocampus_bl", lambda value: float("nan"), "of Hippocampus_bl, on which"),
        ("PTGENDER", lambda value: None, "of PTGENDER, on which"),
        ("PTGENDER", lambda value: value[0], r"of PTGENDER \(it has F, M, agreed are Female, Male\)"),
    ],
)
def test_a_hospital_that_lacks_an_agreed_feature_is_refused_by_its_name(parts, agreed, column, change, message):
    with pytest.raises(ValueError, match=message):
        agreed_features(of_hospital(parts, column, change), agreed)


@pytest.mark.parametrize(
    ("column", "factor"), [("Hippocampus_bl", 0.001), ("Ventricles_bl", 0.001), ("AGE", 12), ("WholeBrain_bl", 1000)]
)
def test_another_unit_is_warned_of(parts, agreed, column, factor):
    with pytest.warns(UserWarning, match=rf"^{re.escape(column)} has mean .* same unit"):
        agreed_features(of_hospital(parts, column, lambda value: value * factor), agreed)


def test_a_single_word_that_is_not_known_is_warned_of(parts, agreed):
    words = iter(["Divers"])
    with pytest.warns(UserWarning, match=r"words in PTGENDER .*: Divers \(1\); it knows Female, Male"):
        agreed_features(of_hospital(parts, "PTGENDER", lambda value: next(words, value)), agreed)


def test_a_list_that_is_not_there_is_named(parts, tmp_path):
    with pytest.raises(FileNotFoundError, match="hospitals have agreed on"):
        agreed_features(parts, tmp_path / "none.json")
