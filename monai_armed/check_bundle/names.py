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
"""What a dotted name in a config leads to, and whether that is of a package that is trusted."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Any

from monai.bundle import ComponentLocator

__all__ = ["PACKAGES", "TrustedNames"]

PACKAGES = ("ignite", "monai", "monai_armed", "numpy", "sklearn", "torch")
"""Packages whose parts a bundle may use unless it is told otherwise."""
SINGLE = frozenset(f"operator.{name}" for name in ("eq", "ge", "gt", "le", "lt", "ne"))
# Parts of these packages that run or fetch programs, or read pickles.
REFUSED = (
    "monai.apps.auto3dseg",
    "monai.apps.datasets",
    "monai.apps.mmars",
    "monai.apps.tcia",
    "monai.apps.utils",
    "monai.bundle",
    "monai.fl",
    "monai.utils.module",
    "monai_armed.__main__",
    "monai_armed.check_bundle",
    "monai_armed.compare",
    "numpy.ctypeslib",
    "numpy.distutils",
    "numpy.f2py",
    "numpy.load",
    "sklearn.datasets",
    "torch.classes",
    "torch.distributed.elastic",
    "torch.distributed.launcher",
    "torch.distributed.rpc",
    "torch.distributed.run",
    "torch.hub",
    "torch.jit.load",
    "torch.library",
    "torch.load",
    "torch.multiprocessing",
    "torch.ops",
    "torch.package",
    "torch.serialization",
    "torch.utils.cpp_extension",
    "torch.utils.model_zoo",
)
NAME = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)*")


class TrustedNames:
    """
    Looks names up in packages that are installed and trusted, which are imported; never in the bundle.

    Args:
        packages: names of the packages.
        bundle: folder of the bundle; a package that lies in it is not trusted, whatever its name.
    """

    def __init__(self, packages: Collection[str], bundle: Path) -> None:
        self.packages, self.bundle = frozenset(packages), bundle.resolve()
        self.locator = ComponentLocator()

    def target(self, name: str) -> str | None:
        """What is wrong with a ``_target_``, in words; None if nothing is. Bare names are looked up as by MONAI."""
        if "." not in name:
            modules = self.locator.get_component_module_name(name) if NAME.fullmatch(name) else None
            if modules is None:
                return f"{name!r} is no class or function of MONAI"
            name = f"{modules if isinstance(modules, str) else modules[0]}.{name}"
        wrong = self.name(name)
        return wrong or (f"{name!r} is a module" if isinstance(self._found(name), ModuleType) else None)

    def name(self, name: str) -> str | None:
        """What is wrong with a dotted name, in words; None if nothing is."""
        if name in SINGLE:
            return None
        if not NAME.fullmatch(name):
            return f"{name!r} is no plain dotted name"
        root = name.split(".")[0]
        if root not in self.packages:
            return f"{name!r} is of the package {root!r}, which is not on the list of packages"
        spec = importlib.util.find_spec(root)
        if spec is None:
            return f"{name!r} is of the package {root!r}, which is not installed, so that it cannot be looked up"
        places = [spec.origin, *(spec.submodule_search_locations or ())]
        if any(self.bundle in Path(place).resolve().parents for place in places if place):
            return f"the package {root!r} lies in the bundle"
        if refused := _refused(name):
            return f"{name!r} is of {refused}, which runs or fetches programs"
        try:
            found = self._found(name)
        except (ImportError, AttributeError):
            return f"there is no {name!r}"
        except _Strays as error:
            return f"{name!r} leads out of the package, to {error}"
        real = f"{getattr(found, '__module__', None) or root}.{getattr(found, '__qualname__', '')}".rstrip(".")
        if isinstance(found, ModuleType):
            real = found.__name__
        elif not callable(found):
            return None
        if real.split(".")[0] not in self.packages:
            return f"{name!r} is really {real!r}, which is not of a package on the list"
        if refused := _refused(real):
            return f"{name!r} is really of {refused}, which runs or fetches programs"
        return None

    def _found(self, name: str) -> Any:
        """The object, with every module on the way to it of a trusted package."""
        parts = name.split(".")
        found: Any = importlib.import_module(parts[0])
        for number, part in enumerate(parts[1:], start=2):
            if isinstance(found, ModuleType) and not hasattr(found, part):
                importlib.import_module(".".join(parts[:number]))
            found = getattr(found, part)
            if isinstance(found, ModuleType) and found.__name__.split(".")[0] not in self.packages:
                raise _Strays(found.__name__)
        return found


class _Strays(Exception):
    pass


def _refused(name: str) -> str | None:
    return next((part for part in REFUSED if name == part or name.startswith(f"{part}.")), None)
