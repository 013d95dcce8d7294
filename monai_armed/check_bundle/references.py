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
"""References of a bundle's configs to ids that are not there, in the order in which its files are merged."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.reference_resolver import ReferenceResolver
from monai.bundle.utils import MACRO_KEY, MERGE_KEY

from ..bundle.config_ids import NO_CONFIGS

__all__ = ["reference_faults"]

WHOLE = ("train", "inference")  # what a config begins with that stands alone
EVALUATE = "evaluate"
MOST_MACROS = 10  # that lead from one to the next
SEPARATOR = ReferenceResolver.sep
Configs = Mapping[str, Mapping[str, Any]]


def reference_faults(configs: Configs) -> Iterator[tuple[str, str]]:
    """
    Look for ``@id`` and ``%id`` that lead nowhere, and for overrides, such as ``"+a"`` or ``"a#b"``, of what is not
    there. Alone stand configs whose names begin with ``train`` or ``inference`` or that have a ``bundle_root``; any
    other is an override of one of these, or of that and ``evaluate``, and so may one be that is not just called
    ``train`` or ``inference``: it has the faults of that place where they are the fewest. What it takes away from the
    others counts, too.

    Args:
        configs: the content of each config by the file's name; they are not evaluated.

    Yields:
        the file's name, and id and what is wrong with it, in words.
    """
    meta = configs.get("metadata.json", {})
    files = {Path(name).stem: name for name, config in configs.items() if name not in NO_CONFIGS and config}
    wholes = [stem for stem, name in files.items() if stem.startswith(WHOLE) or "bundle_root" in configs[name]]
    for stem, name in files.items():
        outcomes: list[tuple[int, int, tuple[str, ...], list[str]]] = []
        for before in _places(stem, files, wholes):
            base, wrong = _merged([configs[files[other]] for other in before])
            config, own = _merged([configs[files[other]] for other in (*before, stem)])
            known = {*wrong, *_unfound(base, meta, configs)}
            found = [fault for fault in (*own, *_unfound(config, meta, configs)) if fault not in known]
            outcomes.append((len(found), len(outcomes), before, found))
        _, _, before, found = min(outcomes)
        place = f" (after {' and '.join(files[other] for other in before)})" if before else ""
        yield from ((name, f"{fault}{place}") for fault in found)


def _places(stem: str, stems: Collection[str], wholes: list[str]) -> list[tuple[str, ...]]:
    """What a config may come after."""
    alone: list[tuple[str, ...]] = [()] if stem in wholes or not wholes else []
    if stem in WHOLE:
        return alone
    before = [other for other in wholes if other != stem]
    evaluated = [(other, EVALUATE) for other in before if EVALUATE in stems and EVALUATE not in (stem, other)]
    return [*alone, *((other,) for other in before), *evaluated]


def _merged(configs: list[Mapping[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """Configs as MONAI merges them, the last one wins; and overrides that it cannot put anywhere."""
    merged: dict[str, Any] = {}
    faults = []
    for config in configs:
        for key, value in config.items():
            *above, last = ReferenceResolver.split_id(str(key).removeprefix(MERGE_KEY))
            try:
                parent = merged
                for part in above:
                    parent = _part(parent, part)
                if str(key).startswith(MERGE_KEY):
                    value = _sum(_part(parent, last), value)
                if isinstance(parent, list):
                    parent[int(last)] = deepcopy(value)
                else:
                    parent[last] = deepcopy(value)
            except (LookupError, TypeError, ValueError):
                way = "adds to" if str(key).startswith(MERGE_KEY) else "overrides a part of"
                what = _shown(SEPARATOR.join([*above, last] if way == "adds to" else above))
                faults.append(f"{key}: it {way} {what!r}, which is not there or of another kind")
    return merged, faults


def _part(config: Any, key: str) -> Any:
    if isinstance(config, list):
        return config[int(key)]
    if isinstance(config, dict):
        return config[key]
    raise TypeError(f"a {type(config).__name__} has no parts")


def _sum(there: Any, more: Any) -> Any:
    if isinstance(there, dict) and isinstance(more, dict):
        return {**there, **more}
    if isinstance(there, list) and isinstance(more, list):
        return [*there, *more]
    raise TypeError("only dicts are added to dicts, and lists to lists")


def _unfound(config: Mapping[str, Any], meta: Any, configs: Configs) -> list[str]:
    """Id and fault of each reference in a merged config that leads nowhere."""
    whole = {ConfigParser.meta_key: meta, **config}
    faults = []
    for id, written in _texts(config):
        try:
            text = ConfigParser.resolve_relative_ids(id, written)
        except ValueError:
            faults.append(f"{_shown(id)}: {written!r} leads out of the config")
            continue
        for other in filter(None, ReferenceResolver.match_refs_pattern(text)):
            if not _is_there(whole, other, configs):
                faults.append(f"{_shown(id)}: there is no id {_shown(other)!r}, which {written!r} refers to")
        if text.startswith(MACRO_KEY) and not _is_there({"": text}, "", configs, whole):
            faults.append(f"{_shown(id)}: there is nothing where {written!r} refers to")
    return faults


def _texts(config: Any, id: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(config, (dict, list)):
        for _, part_id, part in ReferenceResolver.iter_subconfigs(id, config):
            yield from _texts(part, part_id)
    elif isinstance(config, str) and (ReferenceResolver.ref in config or config.startswith(MACRO_KEY)):
        yield id, config


def _is_there(config: Any, id: str, configs: Configs, whole: Any = None, macros: int = 0) -> bool:
    """Whether a config has an id, if need be in what a macro on the way to it stands for."""
    found, whole = config, config if whole is None else whole
    parts = ReferenceResolver.split_id(id)
    for number, part in enumerate(parts):
        try:
            found = _part(found, part)
        except (LookupError, TypeError, ValueError):
            return False
        if isinstance(found, str) and found.startswith(MACRO_KEY):
            file, other = ConfigParser.split_path_id(found[len(MACRO_KEY) :])
            place = configs.get(Path(file).name) if file else whole
            rest = SEPARATOR.join(filter(None, [other, *parts[number + 1 :]]))
            if place is None or not rest:
                return True  # a file that is none of the configs is a fault of its own
            return macros < MOST_MACROS and _is_there(place, rest, configs, place, macros + 1)
    return True


def _shown(id: str) -> str:
    return id.replace(SEPARATOR, "#")
