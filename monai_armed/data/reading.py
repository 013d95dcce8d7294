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

"""What a user says of a table: the names of its columns, and which of its words is which class."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

__all__ = ["READING", "reading_options"]

READING = ("diagnoses", "diagnosis_column", "site_column", "subject_column", "image_column")
"""Arguments that the readers of the studies share; a config has them in its dict ``reading``."""


def reading_options(
    reading: Mapping[str, Any] | None, known: Collection[str] = READING, unused: Collection[str] = ()
) -> dict[str, Any]:
    """
    Arguments for the reader of a table.

    Args:
        reading: what a user says of the table; None in place of a value: nothing.
        known: those of :py:data:`READING` that the reader has.
        unused: those that other readers of the same table have, and that are of no use to this one.

    Returns:
        the arguments that are given, names of columns as text.

    Raises:
        ValueError: when one is unknown.
    """
    if not isinstance(reading, Mapping | None):
        raise ValueError(f"reading must be a dict of {', '.join(known)}, got {reading!r}.")
    given = {name: value for name, value in (reading or {}).items() if value is not None and name not in unused}
    if wrong := [name for name in given if name not in known]:
        raise ValueError(f"{wrong[0]} is nothing that these data are read by, which is {', '.join(known)}.")
    return {name: str(value) if name.endswith("_column") else value for name, value in given.items()}
