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

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

__all__ = ["remove_partial", "replaced_file", "write_csv", "write_text"]


@contextmanager
def replaced_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """
    Write a file that takes the place of ``path`` in one step, once it is whole: a process that is killed leaves the
    old file or the new one, and of two processes that write at once one wins.

    Args:
        path: the file; its folder is made if need be.

    Returns:
        path to write to while the context is open.
    """
    path = Path(path)
    if not path.parent.is_dir():  # to look is faster than to try, for thousands of files
        path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(text: str, path: str | os.PathLike[str]) -> Path:
    """Write a text in one step, as :py:func:`replaced_file` does; returns the path."""
    with replaced_file(path) as file:
        file.write_text(text, encoding="utf-8")
    return Path(path)


def write_csv(table: pd.DataFrame, path: str | os.PathLike[str], index: bool = False) -> Path:
    """The same for a table, without its index unless that is asked for."""
    return write_text(table.to_csv(index=index, lineterminator="\n"), path)


def remove_partial(folder: str | os.PathLike[str]) -> None:
    """
    Remove what processes of this machine that were killed had begun to write with :py:func:`replaced_file`.

    Args:
        folder: the folder; there need be none.
    """
    for path in Path(folder).glob(".*.part"):
        process = path.name.split(".")[-2]
        if process.isdigit() and not _lives(int(process)):
            path.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    if os.name != "posix":  # elsewhere signal 0 is no question
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True
