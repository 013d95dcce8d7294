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

"""A loader for prediction that one sample that cannot be loaded does not end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from monai.data import DataLoader, list_data_collate

from .kept_rows import KeptRows
from .replaced_file import replaced_file

__all__ = ["TolerantLoader"]

FILE = "left_out.csv"


class TolerantLoader(DataLoader):
    """
    MONAI's ``DataLoader`` for prediction over many files: a sample whose transforms fail is left out of its batch, and
    its name and the reason are kept, also where workers load it. :py:meth:`report` tells them when all is done.

    How many batches there are is not known before, so that it has no length.

    Args:
        dataset: a map-style dataset with ``data``, such as MONAI's.
        name_key: key of the data list with what names a sample.
        collate_fn: makes a batch of samples.
        kept: rows of an interrupted run; samples that have one are not loaded again.
        options: further arguments of :class:`monai.data.DataLoader`, which must not be its own order of samples.

    Example:
        >>> loader = TolerantLoader(Dataset([{"file": "0"}, {"file": "1"}], lambda d: {"x": [5][int(d["file"])]}))
        >>> [batch["x"].tolist() for batch in loader]
        [[5]]
        >>> loader.failed
        [('1', 'IndexError: list index out of range')]
    """

    def __init__(
        self,
        dataset: torch.utils.data.Dataset,
        name_key: str = "file",
        collate_fn: Callable[[Sequence[Any]], Any] = list_data_collate,
        kept: KeptRows | None = None,
        **options: Any,
    ) -> None:
        self._caught = _Caught(dataset, name_key)
        super().__init__(self._caught, collate_fn=_Parted(collate_fn), **options)
        self.kept = kept
        self.failed: list[tuple[str, str]] = []  # name and reason
        self.loaded = 0

    def __len__(self) -> int:
        raise TypeError("a TolerantLoader has no length: how many samples can be loaded is not known before.")

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """
        Returns:
            the batches.

        Raises:
            ValueError: when there is no sample that can be loaded.
        """
        self.failed, self.loaded = [], 0
        if self.kept is not None:
            self._caught.wanted = self.kept.remaining(self._caught.dataset.data)
            self.loaded = len(self.kept.rows)
        waiting: list[
            Any
        ] = []  # a batch is given when the next is there, so that with the last one all failures are known
        for number, batch, failures in _one_ahead(super().__iter__()):
            self.failed += failures
            self.loaded += number
            if number:
                yield from waiting
                waiting = [batch]
        if not waiting and self.failed:
            self._end()
        yield from waiting

    def report(self, folder: str | Path) -> None:
        """
        Tell which samples were left out of what was last run over, and why, also in ``left_out.csv``; an older one goes
        where there are none.

        Args:
            folder: where to write the file.

        Raises:
            ValueError: when there are any, so that the program does not end as if all were well.
        """
        file = Path(folder) / FILE
        file.unlink(missing_ok=True)
        if not self.failed:
            return
        with replaced_file(file) as partial:
            pd.DataFrame(self.failed, columns=["file", "reason"]).to_csv(partial, index=False)
        for failure in self.failed:
            print(f"left out: {_told(*failure)}", file=sys.stderr)
        self._end(f"; all are in {file}")

    def _end(self, where: str = "") -> None:
        others = f"the other {self.loaded} were" if self.loaded else "none was"
        first = _told(*self.failed[0]).removesuffix(".")
        number = len(self.failed)
        raise ValueError(
            f"{number} of {number + self.loaded} samples could not be used, {others} (first: {first}){where}."
        )


def _one_ahead(batches: Iterator[Any]) -> Iterator[Any]:
    """What an iterator gives; the next is made by a thread while the caller is busy with this one."""
    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = ahead.submit(next, batches, None)
            yield batch


class _Caught(torch.utils.data.Dataset):
    """A dataset that gives (sample, None) or (None, (name, reason))."""

    def __init__(self, dataset: Any, name_key: str) -> None:
        self.dataset, self.name_key = dataset, name_key
        self.wanted: Sequence[int] = range(len(dataset))

    def __len__(self) -> int:
        return len(self.wanted)

    def __getitem__(self, position: int) -> tuple[Any, tuple[str, str] | None]:
        index = self.wanted[position]
        try:
            return self.dataset[index], None
        except Exception as error:  # whatever is wrong with one is no reason to lose the others
            item = self.dataset.data[index]
            name = item.get(self.name_key) if isinstance(item, Mapping) else None
            return None, (str(name if name is not None else f"sample {index}"), _reason(error))


class _Parted:
    """Collates what could be loaded: (number of samples, their batch, failures)."""

    def __init__(self, collate_fn: Callable[[Sequence[Any]], Any]) -> None:
        self.collate_fn = collate_fn

    def __call__(self, samples: Sequence[tuple[Any, Any]]) -> tuple[int, Any, list[tuple[str, str]]]:
        loaded = [sample for sample, failure in samples if failure is None]
        failures = [failure for _, failure in samples if failure is not None]
        return len(loaded), self.collate_fn(loaded) if loaded else None, failures


def _told(name: str, reason: str) -> str:
    return reason if name in reason else f"{name}: {reason}"


def _reason(error: BaseException) -> str:
    """What a transform said; MONAI says around it which transform it was."""
    while isinstance(error, RuntimeError) and str(error).startswith("applying transform") and error.__cause__:
        error = error.__cause__
    ours = isinstance(error, (ValueError, FileNotFoundError))
    return str(error) if ours and str(error) else f"{type(error).__name__}: {error}"
