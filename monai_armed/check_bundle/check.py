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
"""A bundle is checked without being run."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from .configs import config_faults, logging_faults, read_config
from .files import file_faults, metadata_faults, parts_of, weight_faults
from .names import TrustedNames
from .references import reference_faults

__all__ = ["check_bundle"]

CONFIGS = (".json", ".yaml", ".yml")  # however they are written: MONAI reads .JSON, too


def check_bundle(bundle: str | Path, allowed: Collection[str] = (), ignored: Collection[str] = ()) -> list[str]:
    """
    Look for what a bundle must not have, before it is run: nothing of it is evaluated.

    Args:
        bundle: folder.
        allowed: dotted names of packages, modules, classes and functions that its targets and expressions may use,
            beside :py:data:`~monai_armed.check_bundle.parts.PARTS`, which are imported; and attributes, as ``".name"``.
        ignored: names of folders in the bundle that are not looked into, such as those that runs have left.

    Returns:
        file and what is wrong with it, in words; nothing where all is well.

    Raises:
        FileNotFoundError: when there is no such folder.

    Example:
        >>> check_bundle("bundles/armed_mci")
        []
    """
    bundle = Path(bundle)
    if not bundle.is_dir():
        raise FileNotFoundError(f"there is no folder {bundle}.")
    return list(_faults(bundle, TrustedNames(bundle, allowed), ignored))


def _faults(bundle: Path, names: TrustedNames, ignored: Collection[str]) -> Iterator[str]:
    yield from file_faults(bundle, ignored)
    folder, configs = bundle / "configs", {}
    files = [path for path in parts_of(bundle, ignored) if path.is_file() and not path.is_symlink()]
    read = [path for path in files if path.name.lower().endswith(CONFIGS)]
    # as seen from the bundle, where it is run, or from its configs
    macros = {
        path.relative_to(place).as_posix() for place in (bundle, folder) for path in read if place in path.parents
    }
    for path in files:
        if path.name.lower().endswith(".conf"):
            yield from (f"{path.relative_to(bundle).as_posix()}: {fault}" for fault in logging_faults(path))
    for path in read:
        name = path.relative_to(bundle).as_posix()
        try:
            config = read_config(path)
        except (ValueError, UnicodeDecodeError) as error:
            yield f"{name}: {error}"
            continue
        if path == folder / "metadata.json":
            yield from (f"{name}: {fault}" for fault in metadata_faults(config))
            config = _without_addresses(config)
        yield from (f"{name}: {fault}" for fault in config_faults(config, macros, names))
        if path.parent == folder and isinstance(config, dict):
            configs[path.name] = config
    yield from (f"configs/{name}: {fault}" for name, fault in reference_faults(configs))
    yield from weight_faults(bundle, ignored)


def _without_addresses(metadata: object) -> object:
    """Metadata may name addresses, of its schema and of papers, in text that nothing opens; the rest is a config."""
    if isinstance(metadata, dict):
        return {key: _without_addresses(value) for key, value in metadata.items()}
    if isinstance(metadata, list):
        return [_without_addresses(value) for value in metadata]
    return metadata.replace("://", ":") if isinstance(metadata, str) else metadata
