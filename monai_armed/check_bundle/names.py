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
"""What a dotted name in a config leads to, and whether that is among the parts that a bundle may use."""

from __future__ import annotations

import enum
import importlib
import importlib.util
import inspect
import re
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from monai.bundle import ComponentLocator

from .parts import ATTRIBUTES, HOLES, PARTS

__all__ = ["TrustedNames"]

NAME = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)*")
PLAIN = (bool, int, float, str, enum.Enum, torch.dtype, type(None))  # values that nobody can call


class TrustedNames:
    """
    Looks names up in packages that are installed and trusted, which are imported; never in the bundle.

    Args:
        bundle: folder of the bundle; a package that lies in it is not trusted, whatever its name.
        allowed: dotted names of packages, modules, classes and functions that may be used beside
            :py:data:`~monai_armed.check_bundle.parts.PARTS`; with a dot before it (``".forward"``), an attribute.
    """

    def __init__(self, bundle: Path, allowed: Collection[str] = ()) -> None:
        self.bundle = bundle.resolve()
        self.allowed = frozenset(name for name in allowed if not name.startswith("."))
        self.attributes = ATTRIBUTES | {name[1:] for name in allowed if name.startswith(".")}
        self.parts = PARTS | self.allowed
        self.packages = {part.split(".")[0] for part in self.parts}
        self.locator = ComponentLocator()

    def target(self, name: str) -> str | None:
        """What is wrong with a ``_target_``, in words; None if nothing is."""
        try:
            names = self.written_out(name)
        except LookupError as error:
            return str(error.args[0])
        return next(filter(None, map(self.name, names)), None)

    def written_out(self, name: str) -> list[str]:
        """
        The dotted names that a target may stand for: a bare one is looked up as by MONAI, which takes the first of
        several, in the order of imports.

        Raises:
            LookupError: when it is a bare name that MONAI does not know.
        """
        if "." in name:
            return [name]
        modules = self.locator.get_component_module_name(name) if NAME.fullmatch(name) else None
        if not modules:
            raise LookupError(f"{name!r} is no class or function of MONAI")
        return [f"{module}.{name}" for module in ([modules] if isinstance(modules, str) else modules)]

    def name(self, name: str, imported: bool = False) -> str | None:
        """
        What is wrong with a dotted name, in words; None if nothing is.

        Args:
            name: of a class, a function or a plain value.
            imported: whether it may be a module, too, in which other names are looked up.
        """
        root = name.split(".")[0]
        if not NAME.fullmatch(name):
            return f"{name!r} is no plain dotted name"
        if root not in self.packages:
            return f"{name!r} is of the package {root!r}, which is not on the list of packages"
        spec = importlib.util.find_spec(root)
        if spec is None:
            return f"{name!r} is of the package {root!r}, which is not installed, so that it cannot be looked up"
        places = [spec.origin, *(spec.submodule_search_locations or ())]
        if any(self.bundle in Path(place).resolve().parents for place in places if place):
            return f"the package {root!r} lies in the bundle"
        try:
            found = self.found(name)
        except _Strays as error:
            return str(error)
        except Exception:  # a package may raise anything where it has no such part
            return f"there is no {name!r}"
        if isinstance(found, ModuleType):
            return None if imported and self._leads_to_parts(found.__name__) else f"{name!r} is a module"
        return self._part_fault(name, found)

    def _part_fault(self, name: str, found: Any) -> str | None:
        """A part counts by the name that is written and by the one where it is defined."""
        if isinstance(found, PLAIN) or name in self.parts:
            return None
        if not inspect.isclass(found) and not inspect.isroutine(found):
            return None if _within(name, self.allowed) else f"{name!r} is neither a class nor a function"
        real = f"{getattr(found, '__module__', None) or name.split('.')[0]}.{getattr(found, '__qualname__', '')}"
        both = (name, real)
        if any(_within(one, HOLES) for one in both) and not any(_within(one, self.allowed) for one in both):
            return f"{name!r} is not among the parts that bundles may use, as it runs or fetches something"
        above = name.rpartition(".")[0]
        exported = real.startswith(f"{above}.") and isinstance(self.found(above), ModuleType)
        if not _within(real, self.parts) or not (exported or _within(name, self.parts)):
            also = f", which is really {real!r}," if real != name else ""
            return f"{name!r}{also} is not among the parts that bundles may use"
        return None if isinstance(self.found(above), ModuleType) else f"{name!r} is a method, not a part of a module"

    def _leads_to_parts(self, module: str) -> bool:
        return _within(module, self.parts) or any(part.startswith(f"{module}.") for part in self.parts)

    def found(self, name: str) -> Any:
        """The object; modules on the way to it are of a trusted package, and imported only if parts are in them."""
        parts = name.split(".")
        found: Any = importlib.import_module(parts[0])
        for number, part in enumerate(parts[1:], start=2):
            module = ".".join(parts[:number])
            if isinstance(found, ModuleType) and not hasattr(found, part):
                if not self._leads_to_parts(module):
                    raise _Strays(f"there is no {name!r} among the parts that bundles may use")
                importlib.import_module(module)
            found = getattr(found, part)
            if isinstance(found, ModuleType) and found.__name__.split(".")[0] not in self.packages:
                raise _Strays(f"{name!r} leads out of the package, to {found.__name__}")
        return found


class _Strays(Exception):
    pass


def _within(name: str, parts: Collection[str]) -> bool:
    """Whether a name or a module above it is among the parts."""
    pieces = name.split(".")
    return any(".".join(pieces[:number]) in parts for number in range(1, len(pieces) + 1))
