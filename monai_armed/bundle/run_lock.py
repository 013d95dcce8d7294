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
from contextlib import ExitStack, contextmanager
from pathlib import Path

from monai_armed.data.folder_lock import locked_folder

__all__ = ["claimed"]

LOCK = ".training.lock"
WAIT = 10.0  # seconds; workers of a DataLoader outlive a process that was killed by a few


@contextmanager
def claimed(*folders: str | os.PathLike[str]) -> Iterator[None]:
    """
    Keep other processes from training into folders while the context is open, see
    :py:func:`monai_armed.data.folder_lock.locked_folder`.

    Args:
        folders: the folders; made if need be.

    Raises:
        ValueError: when another process trains into one of them.
    """
    with ExitStack() as stack:
        for folder in dict.fromkeys(Path(folder).resolve() for folder in folders):
            lock = locked_folder(folder, LOCK, "is training", WAIT)
            stack.callback(lock.release)
        yield
