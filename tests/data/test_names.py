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

import pytest

from monai_armed.data.names import name_key, one_spelling, subject_key, tidy_name


@pytest.mark.parametrize(
    ("spellings", "another"),
    [
        (["002", "2", "2.0", " 2", "02", 2, 2.0], "20"),
        (["Mayo", "mayo", "MAYO ", "Mayo\xa0"], "Mayo2"),
        (["0", "000", "0.0"], "1"),
        (["Zürich", "Zu\u0308rich"], "Zurich"),
        (["day 1", "day  1"], "day/1"),
        (["-4", "-4.0"], "4"),
    ],
)
def test_spellings_of_one_name_have_one_key(spellings, another):
    assert len({name_key(name) for name in spellings}) == 1
    assert name_key(another) not in {name_key(name) for name in spellings}


def test_a_subject_may_have_the_prefix_of_bids():
    assert subject_key("sub-s1") == subject_key("s1") == subject_key("SUB-S1 ")
    assert subject_key("sub-001") == subject_key("1") == subject_key(1.0) and subject_key("sub-1") != subject_key("s1")


def test_a_tidy_name_keeps_its_leading_zeros():
    assert [tidy_name(name) for name in ("002", "5.0", " a  b ", "5.5", "v1.0")] == ["002", "5", "a b", "5.5", "v1.0"]


def test_names_that_are_spelled_in_two_ways_are_taken_as_one_and_named():
    with pytest.warns(UserWarning, match=r"table writes 2 names of a site in .* way .'Mayo' and 'mayo'; '2'"):
        names = one_spelling(["Mayo", "mayo", "Mayo", "2", "002", "2.0", "x"], "site", "table")
    assert names == ["Mayo", "Mayo", "Mayo", "2", "2", "2", "x"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert one_spelling(["5.0", "5", "b "], "site", "table") == ["5", "5", "b"]  # pandas' own decimals
