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

from monai_armed.data.reading import READING, reading_options


def test_what_is_given_is_an_argument_and_columns_are_text():
    said = {"diagnoses": {"Dementia": 1}, "site_column": 3, "image_column": None}
    assert reading_options(said) == {"diagnoses": {"Dementia": 1}, "site_column": "3"}
    assert reading_options(None) == {} == reading_options({})
    assert reading_options(said, READING[2:], READING[:1]) == {"site_column": "3"}


def test_what_the_reader_does_not_have_is_named():
    with pytest.raises(ValueError, match="image_column is nothing that these data are read by, which is site_column"):
        reading_options({"image_column": "file"}, ("site_column",))
    with pytest.raises(ValueError, match=r"reading must be a dict of diagnoses, .*, got 'site'"):
        reading_options("site")
