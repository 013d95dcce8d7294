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
"""The files of a bundle: those that must be there, those that must not, metadata and weights."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from monai.utils import optional_import

from ..data.checksums import SUMS, check_shipped

__all__ = ["LEFT_BY_RUNS", "file_faults", "metadata_faults", "parts_of", "weight_faults"]

NEEDED = ("LICENSE", "configs/metadata.json", "docs/README.md")
KINDS = frozenset(
    ".conf .csv .gif .jpeg .jpg .json .md .onnx .png .pt .pt2 .pth .safetensors .ts .txt .yaml .yml".split()
)
WEIGHTS = frozenset(".onnx .pt .pt2 .pth .safetensors .ts".split())
TENSORS = frozenset(".pt .pth".split())  # of which a bundle's configs load tensors alone
# of the schema of 25 July 2024
METADATA = (
    "schema version monai_version pytorch_version numpy_version required_packages_version task description authors "
    "copyright network_data_format changelog"
).split()
LEFT_BY_RUNS = ("output", "data")  # where our configs write by default
TENSOR = "type format num_channels spatial_shape dtype value_range".split()

scan_directory_path, has_picklescan = optional_import("picklescan.scanner", name="scan_directory_path")


def parts_of(bundle: Path, ignored: Collection[str] = ()) -> list[Path]:
    """All files and folders of a bundle but what is in the folders ``ignored``."""
    return [path for path in sorted(bundle.rglob("*")) if path.relative_to(bundle).parts[0] not in ignored]


def file_faults(bundle: Path, ignored: Collection[str] = ()) -> Iterator[str]:
    """
    Args:
        bundle: folder.
        ignored: names of folders in it that are not looked into.

    Yields:
        file and what is wrong, in words: one that is missing, that is a program or leads out of the folder.
    """
    for name in NEEDED:
        if not (bundle / name).is_file():
            yield f"{name}: it is missing"
    if not any((bundle / "configs").glob("*.json")) and not any((bundle / "configs").glob("*.y*ml")):
        yield "configs: there is no config"
    for folder in LEFT_BY_RUNS:
        if (bundle / folder).is_dir() and folder not in ignored:
            yield (
                f"{folder}: a run has left files here, which are no part of a bundle: delete the folder, or give "
                f"--ignore {folder}"
            )
    for path in parts_of(bundle, {*ignored, *LEFT_BY_RUNS}):
        name = path.relative_to(bundle).as_posix()
        if path.is_symlink():
            yield f"{name}: it is a link"
        elif path.is_file() and path.suffix.lower() not in KINDS and path.name not in ("LICENSE", SUMS):
            yield f"{name}: files of this kind are not looked into; a bundle needs none, and code belongs in a package"


def metadata_faults(metadata: Any) -> Iterator[str]:
    """
    Args:
        metadata: what ``configs/metadata.json`` has.

    Yields:
        what MONAI's schema asks for and is not there, in words.
    """
    if not isinstance(metadata, dict):
        yield "it is no dict"
        return
    for key in METADATA:
        if key not in metadata:
            yield f"{key!r} is missing"
    if str(metadata.get("version")) not in dict(metadata.get("changelog") or {}):
        yield f"the changelog does not have the version {metadata.get('version')!r}"
    formats = metadata.get("network_data_format")
    for direction in ("inputs", "outputs"):
        tensors = formats.get(direction) if isinstance(formats, dict) else None
        if not isinstance(tensors, dict) or not tensors:
            yield f"network_data_format has no {direction}"
            continue
        for name, tensor in tensors.items():
            if missing := [key for key in TENSOR if key not in tensor]:
                yield f"network_data_format::{direction}::{name} lacks {', '.join(missing)}"


def weight_faults(bundle: Path, ignored: Collection[str] = ()) -> Iterator[str]:
    """
    Args:
        bundle: folder.
        ignored: names of folders in it whose weights need not be listed.

    Yields:
        file and what is wrong, in words: weights that no ``SHA256SUMS`` beside them lists or that are not those which
        it lists, a ``SHA256SUMS`` of weights that are not there, what is more than tensors, numbers and text, such as
        a pickled module, and what picklescan finds.
    """
    files = [path for path in parts_of(bundle, ignored) if path.is_file()]
    weights = [path for path in files if path.suffix.lower() in WEIGHTS]
    for sums in (path for path in files if path.name == SUMS):
        if sums.parent not in {path.parent for path in weights}:
            yield f"{sums.relative_to(bundle).as_posix()}: the weights that it lists are not there: get the bundle anew"
    for path in weights:
        name = path.relative_to(bundle).as_posix()
        sums = path.parent / SUMS
        listed = sums.read_text(encoding="utf-8", errors="replace").split() if sums.is_file() else []
        if path.name not in (word.lstrip("*") for word in listed[1::2]):
            yield f"{name}: no {SUMS} beside it lists it, so that nobody can tell whether it was exchanged"
            continue
        try:
            check_shipped(path)
        except ValueError as error:
            yield f"{name}: {error}"
        if path.suffix.lower() in TENSORS and not _of_tensors(path):
            yield f"{name}: it is damaged, or holds more than tensors, numbers and text: save a state_dict(), no module"
    if weights and not has_picklescan:
        yield "weights: they were not scanned, as picklescan is not installed: pip install picklescan"
    elif weights:
        result = scan_directory_path(str(bundle))
        found = {f"{one.module}.{one.name}" for one in result.globals if one.safety.value == "dangerous"}
        if result.infected_files or found:
            yield f"weights: picklescan finds {', '.join(sorted(found)) or 'something dangerous'} in them"
        elif result.scan_err:
            yield "weights: picklescan could not read all of them"


def _of_tensors(path: Path) -> bool:
    """Whether PyTorch reads it without calling anything; no tensor is filled."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.load(path, map_location="meta", weights_only=True)
    except Exception:  # a module, TorchScript, or whatever it makes of a damaged file
        return False
    return True
