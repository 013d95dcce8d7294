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

"""Rows of a table of predictions that an interruption does not lose."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock

from .folder_lock import locked_folder
from .replaced_file import write_text
from .sample_marks import short_hash

__all__ = ["KeptRows"]

logger = logging.getLogger(__name__)

FILE = "predictions.unfinished.jsonl"


class KeptRows:
    """
    Rows of a table that is written when all samples are predicted. Until then the rows of each batch are appended to
    ``predictions.unfinished.jsonl`` beside it; a run over the same files that is made by the same takes over what is
    there and predicts the others. A sample whose file has changed since, whose name is not its own, or whose row was
    cut off by the interruption, is predicted anew.

    Args:
        folder: where the table will be; None keeps the rows in memory alone.
        made_by: all that a row depends on beside its sample, by name; the rows of a run that was made by something else
            are not taken over.
        name_key: key of a sample, and head of the column, with its name.

    Attributes:
        rows: those of this run, and of an interrupted one before.

    Example:
        >>> kept = KeptRows("predicted", {"model": "3f2a"})
        >>> kept.remaining([{"file": "a.png"}, {"file": "b.png"}])
        [0, 1]
        >>> kept.add([{"file": "a.png", "probability": 0.2}])  # and is interrupted
        >>> KeptRows("predicted", {"model": "3f2a"}).remaining([{"file": "a.png"}, {"file": "b.png"}])
        [1]
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        made_by: Mapping[str, str] | None = None,
        name_key: str = "file",
    ) -> None:
        self.path = None if folder is None else Path(folder) / FILE
        self.made_by, self.name_key = dict(made_by or {}), name_key
        self.rows: list[dict[str, Any]] = []
        self._lock: filelock.BaseFileLock | None = None
        self._marks: dict[str, str] = {}
        self._names: list[str] = []

    def remaining(self, items: Sequence[Mapping[str, Any]]) -> list[int]:
        """
        Take over the rows of an interrupted run.

        Args:
            items: the samples, dicts as a data list has them.

        Returns:
            indices of those that have no row; of all but the last if all have one, so that there is something to run.

        Raises:
            ValueError: when another process predicts into the folder.
        """
        self.rows = []
        if self.path is None:
            return list(range(len(items)))
        self._lock = locked_folder(self.path.parent, ".predictions.lock", "predicts", is_singleton=True)
        names = self._names = [str(item.get(self.name_key)) for item in items]
        often = Counter(names)
        self._marks = {name: _mark(item) for name, item in zip(names, items) if often[name] == 1}
        wanted = {mark: name for name, mark in self._marks.items()}
        if items:
            wanted.pop(self._marks.get(names[-1], ""), None)
        found = {mark: row for mark, row in self._read() if mark in wanted}
        self.rows = list(found.values())
        self._write_all(found)
        if found:
            logger.info(f"{len(found)} of {len(items)} samples have their rows from a run that was interrupted.")
        done = {wanted[mark] for mark in found}
        return [i for i, name in enumerate(names) if name not in done]

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """
        Args:
            rows: of one batch, of numbers, texts, truth values and lists of them.
        """
        texts = [json.dumps(row, default=lambda value: value.item()) for row in rows]
        self.rows += [json.loads(text) for text in texts]  # so that a row is the same, interrupted or not
        if self.path is not None:
            marks = [self._marks.get(str(row.get(self.name_key)), "") for row in rows]
            with open(self.path, "a", encoding="utf-8") as file:
                file.writelines(_line(mark, text) for mark, text in zip(marks, texts))

    def table(self) -> list[dict[str, Any]]:
        """All rows, in the order of the samples."""
        place = {name: i for i, name in reversed(list(enumerate(self._names)))}
        return sorted(self.rows, key=lambda row: place.get(str(row.get(self.name_key)), len(place)))

    def finish(self) -> None:
        """The table is written: what was kept of it goes."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.release(force=True)

    def _read(self) -> list[tuple[str, dict[str, Any]]]:
        """Mark and row of each whole line, where the same has made them."""
        assert self.path is not None
        if not self.path.is_file():
            return []
        lines = []
        for text in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:  # cut off, or not ours
                continue
        before = lines[0] if lines and isinstance(lines[0], dict) else {}
        differ = sorted(name for name in before.keys() | self.made_by if before.get(name) != self.made_by.get(name))
        if differ:
            logger.warning(
                f"{self.path.parent} has rows of a run that was interrupted, which was made by another "
                f"{' and '.join(differ)}: all is predicted anew."
            )
            return []
        return [(line[0], line[1]) for line in lines[1:] if isinstance(line, list) and len(line) == 2]

    def _write_all(self, found: Mapping[str, Mapping[str, Any]]) -> None:
        """Begin the file anew with what is taken over."""
        assert self.path is not None
        lines = [json.dumps(self.made_by) + "\n", *(_line(mark, json.dumps(row)) for mark, row in found.items())]
        write_text("".join(lines), self.path)


def _line(mark: str, row: str) -> str:
    return f"[{json.dumps(mark)}, {row}]\n"


def _mark(item: Mapping[str, Any]) -> str:
    """What a sample is known by: all that its item says, and size and time of the files that it names."""
    files = [value for value in item.values() if isinstance(value, (str, os.PathLike)) and os.path.isfile(value)]
    stats = [(stat.st_size, stat.st_mtime_ns) for stat in map(os.stat, files)]
    return short_hash([{key: str(value) for key, value in item.items()}, stats])
