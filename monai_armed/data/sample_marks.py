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
"""What a sample and a data set are told by: what is in them, not where they lie."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .names import name_key, subject_key

__all__ = ["KEYS", "sample_content", "sample_key", "sample_mark", "short_hash", "study_name"]

KEYS = {"clusters": "sites", "cluster": "site", "subject": "subject"}
"""Where partitions keep the names of their clusters, and their samples cluster and subject, unless they say it."""

_PIECE = 2**16  # bytes; a file of three such pieces is read whole


def sample_key(item: Mapping[str, Any], keys: Mapping[str, str] = KEYS) -> tuple[str, str]:
    """Who a sample is of: cluster and subject, as any spelling of them has it."""
    return name_key(item[keys["cluster"]]), subject_key(item[keys["subject"]])


def sample_content(item: Mapping[str, Any]) -> str:
    """
    What is in a sample, whatever its names: its ``"content"``, if its reader gives one, else a hash of its ``"image"``,
    an array or a file (of a large one its size, beginning, middle and end). Empty where a file is empty or cannot be
    read.
    """
    if "content" in item:
        return str(item["content"])
    image = item["image"]
    if isinstance(image, np.ndarray):
        return short_hash([str(image.dtype), image.shape], image.tobytes())
    try:
        stat = os.stat(image)
        return _file_content(str(image), stat.st_size, stat.st_mtime_ns)
    except OSError:
        return ""


def sample_mark(item: Mapping[str, Any], keys: Mapping[str, str] = KEYS, content: str | None = None) -> str:
    """
    What a sample is known by wherever it lies: a hash of its cluster, its subject and its content; of the name of its
    file where it has no content.

    Args:
        item: the sample.
        keys: its keys of cluster and subject.
        content: its :py:func:`sample_content`, if that is known already.
    """
    content = sample_content(item) if content is None else content
    return short_hash([*sample_key(item, keys), content or os.path.basename(item["image"])])


@functools.lru_cache(maxsize=2**18)
def _file_content(path: str, size: int, changed: int) -> str:
    """Hash of a file's content, which has changed if its time has; nothing for an empty file."""
    if not size:
        return ""
    with open(path, "rb") as file:
        if size <= 3 * _PIECE:
            return short_hash(size, file.read())
        pieces = []
        for start in (0, (size - _PIECE) // 2, size - _PIECE):
            file.seek(start)
            pieces.append(file.read(_PIECE))
        return short_hash(size, *pieces)


def short_hash(value: Any, *contents: bytes) -> str:
    """12 hexadecimal digits of the SHA-256 of what JSON can hold and of bytes."""
    digest = hashlib.sha256(json.dumps(value).encode())
    for content in contents:
        digest.update(content)
    return digest.hexdigest()[:12]


def study_name(
    datalist: Sequence[Mapping[str, Any]],
    keys: Mapping[str, str] = KEYS,
    marker: str | os.PathLike[str] | None = None,
) -> str:
    """
    Which data set samples are of. A copy of it in another folder has the same name; other people's data have another,
    though all names in them may be the same.

    Args:
        datalist: its samples.
        keys: their keys of cluster and subject.
        marker: file in which a simulator keeps its parameters, if the data may be simulated: then the draw is the name.

    Returns:
        ``"simulated draw 0"``, say, or ``"data"`` with a hash of every :py:func:`sample_mark`.
    """
    if marker is not None and Path(marker).is_file():
        return f"simulated draw {json.loads(Path(marker).read_text(encoding='utf-8'))['seed']}"
    return f"data {short_hash(sorted(sample_mark(item, keys) for item in datalist))}"
