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

"""Values of a config that can be none for their id: told by what the bundle's own files have there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.reference_resolver import ReferenceResolver

from monai_armed.bundle.config_ids import NO_CONFIGS, PATHS

__all__ = ["check_values", "check_whole_numbers"]

WHOLE_NUMBERS = {"seed": 0, "max_epochs": 1, "z_predictor#max_epochs": 1, "val_interval": 1}
"""Ids, where a config has them, by the least that they may be."""

KINDS = {"flag": "true or false", "number": "a number", "list": "a list of numbers"}
SIZES = ("channels", "_size")  # ends of ids of what must be above 0
SEPARATOR = ReferenceResolver.sep


def check_values(config: Mapping[str, Any], configs: Path) -> None:
    """
    See that values are of the kind that the bundle's own files have at the same id: numbers, lists of numbers, true or
    false, and names of files and folders. Expressions, and what is in a part with a ``_target_``, are not looked at.

    Args:
        config: the whole config, in which words are values, see :py:func:`monai_armed.bundle.config_ids.read_words`.
        configs: folder of the bundle's files.

    Raises:
        ValueError: when a value is of another kind, NaN, infinite, a size that is not above 0, or a probability that is
            not from 0 to 1; names its id.
    """
    own: dict[str, set[str]] = {}
    for file in configs.glob("*.json"):
        if file.name not in NO_CONFIGS:
            for id, value in _values(ConfigParser.load_config_file(file)):
                own.setdefault(ReferenceResolver.normalize_id(id), set()).add(_kind(value))
    for id, value in _values(config):
        kinds, shown = own.get(id, {"other"}), id.replace(SEPARATOR, "#")
        if kinds != {"expression"}:  # what one file works out is of the kind that it is in the others
            kinds = kinds - {"expression"}
        if value is None and id.endswith(PATHS) and "null" not in kinds:
            raise ValueError(f"{shown} must name a file or folder, got null.")
        if not kinds <= KINDS.keys() or _kind(value) == "expression":
            continue
        if _kind(value) not in kinds:
            raise ValueError(f"{shown} must be {' or '.join(KINDS[kind] for kind in sorted(kinds))}, got {value!r}.")
        if id.endswith(SIZES) and min(value if isinstance(value, list) else [value]) <= 0:
            raise ValueError(f"{shown} must be above 0, got {value!r}.")
        if id.endswith("probability") and not 0 <= value <= 1:
            raise ValueError(f"{shown} must be from 0 to 1, got {value!r}.")


def check_whole_numbers(parser: ConfigParser) -> None:
    """
    See that what must be a whole number is one, such as the seed. Expressions are not looked at.

    Args:
        parser: of the config.

    Raises:
        ValueError: when it is none, or less than it may be; names its id.
    """
    for id, least in WHOLE_NUMBERS.items():
        value = parser.get(id)
        if id not in parser or _kind(value) == "expression":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{id} must be a whole number of at least {least}, got {value!r}.")


def _values(config: Mapping[str, Any], parent: str = "") -> Iterator[tuple[str, Any]]:
    """All values but those in parts, by id."""
    for key, value in config.items():
        id = f"{parent}{SEPARATOR}{key}" if parent else str(key)
        if not isinstance(value, dict):
            yield id, value
        elif "_target_" not in value:
            yield from _values(value, id)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, (int, float)):
        return "number" if math.isfinite(value) else "other"
    if isinstance(value, list) and value and all(_kind(item) == "number" for item in value):
        return "list"
    if isinstance(value, str) and value[:1] in ("$", "@", "%"):
        return "expression"
    return "null" if value is None else "other"
