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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from monai.bundle.reference_resolver import ReferenceResolver

from .expressions import expression_faults, imported
from .names import TrustedNames

__all__ = ["config_faults", "logging_faults", "read_config"]

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
IMPORT = re.compile(r"\s*(import|from)\b")
HANDLERS = ("NullHandler", "StreamHandler")
LOGGED = re.compile(r"\(\s*(sys\.std(out|err)\s*,?)?\s*\)")
LOGGING_KEYS = "args class datefmt format formatter handlers keys level propagate qualname style".split()


def read_config(path: Path) -> Any:
    """
    Args:
        path: JSON or YAML.

    Raises:
        ValueError: when it is neither, or YAML that makes objects.
    """
    text = path.read_text(encoding="utf-8")
    try:
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (json.JSONDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"it cannot be read: {str(error).splitlines()[0]}") from error


def config_faults(config: Any, folder: Path, names: TrustedNames) -> Iterator[str]:
    """
    Args:
        config: what a config file has.
        folder: of the configs, in which macros may name files.
        names: where packages are looked up.

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
        for fault in _value_faults(_last(id), value, folder, names, imports):
            yield f"{id}: {fault}"


def _values(config: Any, id: str = "") -> Iterator[tuple[str, Any]]:
    """Ids and values of all that is no dict and no list."""
    if isinstance(config, (dict, list)):
        for key, value in config.items() if isinstance(config, dict) else enumerate(config):
            yield from _values(value, f"{id}::{key}" if id else str(key))
    else:
        yield id, config


def _last(id: str) -> str:
    """The last part of an id, which says what the value is for; a key of an override may have several parts itself."""
    return ReferenceResolver.split_id(id)[-1].lstrip("+~")


def _value_faults(key: str, value: Any, folder: Path, names: TrustedNames, imports: dict[str, str]) -> Iterator[str]:
    if key == "_target_":
        plain = isinstance(value, str) and value[:1] not in ("$", "@", "%")
        wrong = names.target(value) if plain else "a target must be written out, not come from somewhere else"
        yield from [wrong] if wrong else []
        return
    if key == "_mode_" and value not in ("default", "callable"):
        yield f"the mode {value!r} is neither default nor callable"
    if key == "_debug_" and value:
        yield "a debugger would be started"
    if key == "pretrained" and value not in (False, None):
        yield "pretrained weights would be fetched from the network"
    if not isinstance(value, str):
        return
    if ADDRESS.search(value):
        yield f"{value!r} has an address of the network"
    if value.startswith("%"):
        yield from _macro_faults(value, folder)
    if value.startswith("$") and not IMPORT.match(value[1:]):
        yield from expression_faults(value[1:], names, imports)


def _macro_faults(value: str, folder: Path) -> Iterator[str]:
    named = re.match(r"%(.*?\.(json|ya?ml))(?=::|#|$)", value, re.IGNORECASE)
    if named and (Path(named[1]).is_absolute() or (folder / Path(named[1]).name).resolve() not in _configs(folder)):
        yield f"{value!r} takes in a file that is none of the bundle's configs"


def _configs(folder: Path) -> set[Path]:
    return {path.resolve() for path in folder.iterdir()}


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
