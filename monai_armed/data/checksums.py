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

"""Files that are as they were shipped: their SHA-256 stands in ``SHA256SUMS`` beside them."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

__all__ = ["check_shipped", "sha256"]

SUMS = "SHA256SUMS"  # as `sha256sum` writes and checks it
LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def check_shipped(path: str | os.PathLike[str]) -> None:
    """
    See that a shipped file, and whatever is shipped with it, is as it was. A file that no ``SHA256SUMS`` beside it
    lists, such as weights of a user's own, is not shipped: nothing is checked then.

    Args:
        path: the file.

    Raises:
        ValueError: when one of the listed files has another content or is missing, or the list is damaged.
    """
    folder, name = Path(path).parent, Path(path).name
    listed = _read(folder / SUMS) if (folder / SUMS).is_file() else {}
    for other, digest in listed.items() if name in listed else ():
        file = folder / other
        if not file.is_file() or sha256(file) != digest:
            raise ValueError(
                f"{file} is not the file that was shipped with {folder / name} (by its SHA-256 in {SUMS}): get the "
                f"bundle anew, or, if the files are your own, write {folder / SUMS} anew with sha256sum."
            )


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _read(path: Path) -> dict[str, str]:
    """SHA-256 by file name."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    found = [LINE.fullmatch(line) for line in lines if line.strip()]
    if not found or None in found:
        raise ValueError(f"{path} is damaged: each line must be a SHA-256 and a file name; get the bundle anew.")
    return {match[2]: match[1] for match in found if match}
