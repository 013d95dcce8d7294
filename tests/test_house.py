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
"""What the repository says of itself: versions, pins, and the README's links and example."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import monai_armed

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DOCUMENTS = [p for place in ("*.md", "bundles/*/docs/*.md", "docs/**/*.md") for p in sorted(ROOT.glob(place))]


def direct_dependencies() -> dict[str, Requirement]:
    """All requirements of the package and of its extras, but for the package itself."""
    extras = PROJECT["optional-dependencies"].values()
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]
    requirements = {canonicalize_name(r.name): r for r in map(Requirement, lines)}
    return {name: r for name, r in requirements.items() if name != canonicalize_name(PROJECT["name"])}


def pins(python: str) -> dict[str, Requirement]:
    """The lines of constraints.txt that hold for a version of Python, such as ``"3.10"``."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    found = [r for r in found if r.marker is None or r.marker.evaluate({"python_version": python})]
    names = [canonicalize_name(r.name) for r in found]
    assert len(set(names)) == len(names), f"pinned twice for Python {python}"
    return dict(zip(names, found))


def example_of_the_readme() -> str:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) == 1
    return blocks[0]


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert monai_armed.__version__ == PROJECT["version"] == citation["version"] == version("monai_armed")


@pytest.mark.parametrize("bundle", sorted(ROOT.glob("bundles/*")), ids=lambda folder: folder.name)
def test_the_oldest_monai_is_that_of_the_bundles(bundle):
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    (oldest,) = direct_dependencies()["monai"].specifier
    assert (oldest.operator, oldest.version) == (">=", metadata["monai_version"])


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_every_direct_dependency_is_pinned_in_its_range(python):
    pinned = pins(python)
    for name, requirement in direct_dependencies().items():
        if requirement.marker is not None and not requirement.marker.evaluate({"python_version": python}):
            continue
        assert name in pinned, f"{requirement} has no pin for Python {python} in constraints.txt"
        specifiers = list(pinned[name].specifier)
        assert [s.operator for s in specifiers] == ["=="]
        assert requirement.specifier.contains(specifiers[0].version), f"{pinned[name]} is outside {requirement}"


def test_importing_the_package_is_light():
    code = "import sys, monai_armed; sys.exit(any(m in sys.modules for m in ('torch', 'monai', 'matplotlib')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_relative_links_and_pictures_exist(document):
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http://", "https://", "mailto:", "#")):
            assert (document.parent / target.split("#")[0]).exists(), f"{document.name} points at missing {target}"


def test_the_example_of_the_readme_runs():
    code = example_of_the_readme()
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    torch.manual_seed(0)
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert set(names["prediction"]) == {"mixed", "fixed", "adversary", "kl"}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in names["net"].parameters() if p.requires_grad)
    assert names["seen"].shape == names["unseen"].shape == (4, 1)
    assert names["per_site"].shape[0] == 12
