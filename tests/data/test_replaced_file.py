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

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
import pytest

from monai_armed.bundle.plain_errors import sentence_of
from monai_armed.data.replaced_file import replaced_file, write_csv, write_text

resource = pytest.importorskip("resource", reason="file size limits are of Unix")


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes: a disk that is full after a part of a file is written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


WRITERS = {
    "text": lambda path: write_text("x" * 100_000, path),
    "table": lambda path: write_csv(pd.DataFrame({"x": range(50_000)}), path),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_file_that_does_not_fit_leaves_the_old_one_whole(write, tmp_path):
    path = tmp_path / "new" / "results"
    write_text("old", path)
    with room_for(5000), pytest.raises(OSError, match="File too large") as error:
        write(path)
    assert error.value.errno == errno.EFBIG and path.read_text() == "old"
    assert [file.name for file in path.parent.iterdir()] == ["results"]
    assert "cannot be written (File too large); choose another place" in sentence_of(error.value)
    write(path)
    assert path.stat().st_size > 5000


def test_tables_are_written_as_pandas_would(tmp_path):
    table = pd.DataFrame({"name": ["Zürich", 'a "b", c'], "x": [0.1, None]}, index=["i", "j"])
    for index in (False, True):
        path = write_csv(table, tmp_path / "table.csv", index=index)
        table.to_csv(tmp_path / "wanted.csv", index=index)
        assert path.read_bytes().replace(b"\r", b"") == (tmp_path / "wanted.csv").read_bytes().replace(b"\r", b"")


def test_what_fails_on_the_way_leaves_nothing(tmp_path):
    with pytest.raises(TypeError), replaced_file(tmp_path / "a.json") as file:
        file.write_text("{")
        json.dumps(object())
    assert not list(tmp_path.iterdir())
