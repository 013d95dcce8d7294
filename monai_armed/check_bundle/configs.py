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
"""What a bundle's configs would run: targets, expressions, imports, addresses, logging."""

from __future__ import annotations

import configparser
import json
import re
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser
from monai.bundle.reference_resolver import ReferenceResolver

from .arguments import call_faults, key_fault
from .expressions import ADDRESS, expression_faults, imported
from .names import TrustedNames

__all__ = ["config_faults", "logging_faults", "read_config"]

IMPORT = re.compile(r"\s*(import|from)\b")
HANDLERS = ("NullHandler", "StreamHandler")
LOGGED = re.compile(r"\(\s*(sys\.std(out|err)\s*,?)?\s*\)")
LOGGING_KEYS = "args class datefmt format formatter handlers keys level propagate qualname style".split()
MOST_VALUES = 1_000_000


def read_config(path: Path) -> Any:
    """
    Args:
        path: JSON or YAML.

    Raises:
        ValueError: when it is neither, or YAML that makes objects.
    """
    text = path.read_text(encoding="utf-8")
    try:
        config = json.loads(text) if path.name.lower().endswith(".json") else yaml.safe_load(text)
        number = sum(1 for _ in islice(_values(config), MOST_VALUES + 1))
    except (json.JSONDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"it cannot be read: {str(error).splitlines()[0]}") from error
    if number > MOST_VALUES:  # a few lines of YAML can stand for any number
        raise ValueError(f"it cannot be read: it has more than {MOST_VALUES} values")
    return config


def config_faults(config: Any, macros: Collection[str], names: TrustedNames) -> Iterator[str]:
    """
    Args:
        config: what a config file has.
        macros: paths that macros may name: of files that are checked.
        names: where parts are looked up.

    Yields:
        id and what is wrong with it, in words.
    """
    values = list(_values(config))
    imports: dict[str, str] = {}
    for id, value in values:
        if isinstance(value, str) and value.startswith("$") and IMPORT.match(value[1:]):
            try:
                found, wrong = imported(value[1:].strip(), names)
            except (SyntaxError, ValueError):
                found, wrong = {}, ["it cannot be parsed"]
            imports |= found
            yield from (f"{id}: {fault}" for fault in wrong)
    for id, value in values:
        faults = _value_faults(_key(id), value, macros, names, imports)
        yield from (f"{id}: {fault}" for fault in faults)
        if isinstance(value, dict) and "_target_" in value:
            yield from (f"{id}: {fault}" for fault in _component_faults(value, names))
    for id, value in config.items() if isinstance(config, dict) else ():
        if _key(id) == "_target_" and id != "_target_":  # an override
            yield from (f"{id}: {fault}" for fault in _component_faults({"_target_": value}, names))


def _values(config: Any, id: str = "") -> Iterator[tuple[str, Any]]:
    """Ids and values of a config and of all that is in it."""
    yield id, config
    if isinstance(config, (dict, list)):
        for key, value in config.items() if isinstance(config, dict) else enumerate(config):
            yield from _values(value, f"{id}::{key}" if id else str(key))


def _key(id: str) -> str:
    """What a value is for: the last part of an id that is no number; a key of an override may have several parts."""
    parts = [part.lstrip("+~") for part in ReferenceResolver.split_id(id)]
    return next((part for part in reversed(parts) if not part.isdigit()), "")


def _component_faults(component: dict[Any, Any], names: TrustedNames) -> Iterator[str]:
    """What is wrong with the arguments of a target; what is wrong with the target itself is said elsewhere."""
    target = component["_target_"]
    if not isinstance(target, str) or names.target(target):
        return
    handed_on = component.get("_mode_", "default") != "default"
    yield from call_faults(target, names.found(names.written_out(target)[0]), None if handed_on else component)


def _value_faults(
    key: str, value: Any, macros: Collection[str], names: TrustedNames, imports: dict[str, str]
) -> Iterator[str]:
    if key == "_target_":
        plain = isinstance(value, str) and value[:1] not in ("$", "@", "%")
        wrong = names.target(value) if plain else "a target must be written out, not come from somewhere else"
        yield from [wrong] if wrong else []
        return
    if key == "_mode_" and value not in ("default", "callable"):
        yield f"the mode {value!r} is neither default nor callable"
    if key == "_debug_" and value:
        yield "a debugger would be started"
    if wrong := key_fault(key, value):
        yield wrong
    if not isinstance(value, str):
        return
    if ADDRESS.search(value):
        yield f"{value!r} has an address of the network"
    if value.startswith("%") and (file := ConfigParser.split_path_id(value[1:])[0]) and file not in macros:
        yield f"{value!r} takes in a file that is none of the bundle's configs"
    if value.startswith("$") and not IMPORT.match(value[1:]):
        yield from expression_faults(value[1:], names, imports)


def logging_faults(path: Path) -> Iterator[str]:
    """
    Args:
        path: a ``logging.conf``, of which Python evaluates classes and arguments of handlers.

    Yields:
        section and what is wrong with it, in words.
    """
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except (configparser.Error, UnicodeDecodeError) as error:
        yield f"it cannot be read: {str(error).splitlines()[0]}"
        return
    for section in parser.sections():
        for key, value in parser[section].items():
            if key not in LOGGING_KEYS:
                yield f"{section}: {key!r} is not among {', '.join(LOGGING_KEYS)}"
            elif key == "class" and value not in HANDLERS:
                yield f"{section}: the class {value!r} is none of {', '.join(HANDLERS)}"
            elif key == "args" and not LOGGED.fullmatch(value.strip()):
                yield f"{section}: the arguments {value!r} are evaluated and must be (sys.stderr,) or (sys.stdout,)"
