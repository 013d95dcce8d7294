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

"""What a user may have meant by an id or a value of a config that no file of the bundle has."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.reference_resolver import ReferenceResolver
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS

from monai_armed.data.reading import READING

__all__ = ["bundle_ids", "check_ids", "read_words", "references", "take_reading"]

NO_CONFIGS = ("compare.json", "metadata.json", "search.json")
WORDS = {"null": None, "none": None, "true": True, "false": False}
PATHS = ("_dir", "_path")
NAMES = ("site",)
LISTS = ("seen_sites", "seen_batches", "as_batches")
SEPARATOR = ReferenceResolver.sep


def bundle_ids(configs: Path) -> dict[str, Any]:
    """
    All ids of a bundle's config files, whichever file has them.

    Args:
        configs: folder of the files.

    Returns:
        the value of each id; that of one of the files where several have it, a dict where one has a dict.
    """
    found: dict[str, Any] = {}
    for file in sorted(configs.glob("*.json")):
        if file.name not in NO_CONFIGS:
            for name, value in ConfigParser.load_config_file(file).items():
                for id, part in _walk({ReferenceResolver.normalize_id(name).lstrip("+"): value}):
                    if not isinstance(found.get(id), dict):
                        found[id] = part
    if "reading" in found:
        found |= {name: None for id in READING for name in (id, f"reading{SEPARATOR}{id}")}
    return found


def take_reading(config: dict[str, Any]) -> None:
    """
    Put what a user says of a table, such as ``--site_column``, into ``reading``, in place, where a config has that.

    Args:
        config: the whole config.
    """
    if isinstance(config.get("reading"), dict):
        config["reading"] = {**config["reading"], **{id: config.pop(id) for id in READING if id in config}}


def _walk(config: Mapping[str, Any], parent: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        id = f"{parent}{SEPARATOR}{key}" if parent else str(key)
        yield id, value
        if isinstance(value, dict):
            yield from _walk(value, id)


def references(config: Any) -> set[str]:
    """Ids that a part of a config refers to."""
    if isinstance(config, str):
        return set(ReferenceResolver.match_refs_pattern(config))
    parts: Iterable[Any] = config.values() if isinstance(config, dict) else config if isinstance(config, list) else ()
    return {id for part in parts for id in references(part)}


def check_ids(config: Mapping[str, Any], known: Mapping[str, Any], others: Collection[str] = ()) -> None:
    """
    See that an id that a user has added is no mistyped one: one that the bundle's files have not, that nothing refers
    to, and that is no argument of a part, whose constructor would refuse it.

    Args:
        config: the whole config.
        known: from :py:func:`bundle_ids`.
        others: further ids at the top that are right, such as those of MONAI's tracking.

    Raises:
        ValueError: when there is such an id; names the nearest right one.
    """
    used = references(dict(config))
    tracking = {
        key
        for settings in DEFAULT_EXP_MGMT_SETTINGS.values()
        for key in settings["configs"]  # type: ignore[attr-defined]
    }
    right = {ConfigParser.meta_key, *tracking, *others}
    for id in _own_names(config, known):
        referred = any(other == id or other.startswith(id + SEPARATOR) for other in used)
        if id not in known and id not in right and not referred:
            close = difflib.get_close_matches(id, known, 1)
            hint = f": did you mean {_shown(close[0])!r}?" if close else ", and nothing in the config refers to it."
            raise ValueError(f"there is no id {_shown(id)!r} in this bundle{hint}")


def _own_names(config: Mapping[str, Any], known: Mapping[str, Any], parent: str = "") -> Iterator[str]:
    """Ids that only their place gives a meaning: not those in a part, or in what the files have no dict for."""
    for key, value in config.items():
        id = f"{parent}{SEPARATOR}{key}" if parent else str(key)
        yield id
        if isinstance(value, dict) and "_target_" not in value and isinstance(known.get(id), dict):
            yield from _own_names(value, known, id)


def _shown(id: str) -> str:
    return id.replace(SEPARATOR, "#")


def read_words(config: dict[str, Any], names: Collection[str] = (*NAMES, *LISTS)) -> None:
    """
    Take values as a command line meant them, in place: the words null, none, true and false, which arrive as text;
    folders, files, sites and batches whose names are numbers; and a single name where a list of names is meant.

    Args:
        config: the whole config.
        names: ids of names of clusters, all and those of lists; further down the same words are keys of other things.
    """
    for key, value in config.items():
        if isinstance(value, dict):
            read_words(value, ())
        elif isinstance(value, str) and value.lower() in WORDS:
            config[key] = WORDS[value.lower()]
        elif str(key).endswith(PATHS) or key in names:
            value = _text(value)
            code = isinstance(value, str) and value.startswith(("$", ReferenceResolver.ref))  # whose value comes later
            if key in LISTS and isinstance(value, str) and not code:
                value = [value]
            config[key] = [_text(name) for name in value] if isinstance(value, (list, tuple)) else value


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
