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

"""A folder that one process at a time writes to."""

from __future__ import annotations

import os
from pathlib import Path

import filelock

__all__ = ["locked_folder"]


def locked_folder(
    folder: str | os.PathLike[str], file: str, does: str, timeout: float = 0.0, is_singleton: bool = False
) -> filelock.BaseFileLock:
    """
    Keep other processes out of a folder until the lock is released. The operating system takes it back from a process
    that dies, however it dies; the empty file that stays behind holds nobody up. On a network file system it holds
    between machines where the system hands locks on (NFS from version 4, Lustre mounted with flock); where there are
    no locks at all, it keeps nobody out.

    Args:
        folder: made if need be.
        file: name of the lock's file in it.
        does: what its holder does, such as ``"predicts"``.
        timeout: seconds to wait for another.
        is_singleton: whether a process may take its own lock again.

    Returns:
        the lock, to be released.

    Raises:
        ValueError: when another process holds it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / file, timeout=timeout, is_singleton=is_singleton)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise ValueError(
            f"another process {does} into {folder}: wait until it has ended, or give another --output_dir."
        ) from None
    except NotImplementedError:  # a file system without locks
        pass
    return lock
