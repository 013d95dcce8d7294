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

"""What the tests of several benchmarks share."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def benchmark_modules() -> Iterator[Callable[[Path, Sequence[str]], dict[str, ModuleType]]]:
    """Imports modules of a benchmark's folder by name; another benchmark has a ``run`` and ``scores``, too."""
    with pytest.MonkeyPatch.context() as patch:
        imported: list[str] = []

        def load(folder: Path, names: Sequence[str]) -> dict[str, ModuleType]:
            patch.syspath_prepend(folder)
            for name in names:
                patch.delitem(sys.modules, name, raising=False)
            imported.extend(names)
            return {name: importlib.import_module(name) for name in names}

        yield load
        for name in imported:
            patch.delitem(sys.modules, name, raising=False)
