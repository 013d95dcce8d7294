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

"""Cluster names (site, batch, subject) to the indices that the networks take."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import ensure_tuple_rep

from ..data.names import name_key

__all__ = ["ClusterToIndexD", "ClusterToIndexDict", "ClusterToIndexd"]


class ClusterToIndexd(MapTransform):
    """Replace the name of a cluster by its index in a list of known clusters.

    A name is known in another spelling, too (``"2.0"`` or ``"2"`` for ``"002"``, see
    :py:func:`monai_armed.data.names.name_key`), unless several of the known ones have it.

    Args:
        keys: keys of the cluster names.
        clusters: names of the known clusters; the position in this list is the index. For keys that hold clusters of
            different factors a mapping of each key to its list.
        unknown: what to do with any other name: ``"error"`` raises, ``"unknown"`` gives -1, which the networks take
            as "not known"; for several keys one word, or one for each.
        output_keys: keys to write the indices to, so that the names stay; by default ``keys``.
        allow_missing_keys: do not raise when a key is missing.

    Raises:
        ValueError: when ``clusters`` is empty or has a name twice, or lacks a key, or ``unknown`` is neither of the
            two words.

    Example:
        >>> ClusterToIndexd("site", ["002", "005"], output_keys="cluster")({"site": "005"})
        {'site': '005', 'cluster': 1}
        >>> known = {"site": ["002", "005"], "subject": ["002_1", "005_1"]}
        >>> ClusterToIndexd(["site", "subject"], known)({"site": "005", "subject": "002_1"})
        {'site': 1, 'subject': 0}
    """

    def __init__(
        self,
        keys: KeysCollection,
        clusters: Sequence[str] | Mapping[Hashable, Sequence[str]],
        unknown: str | Mapping[Hashable, str] = "error",
        output_keys: KeysCollection | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        of_each = clusters if isinstance(clusters, Mapping) else dict.fromkeys(self.keys, clusters)
        if not set(self.keys) <= set(of_each):
            raise ValueError(f"clusters must be given for each of the keys {self.keys}, got {list(of_each)}.")
        self.index = {key: _index(of_each[key]) for key in self.keys}
        self.spellings = {key: _spellings(index) for key, index in self.index.items()}
        self.unknown = dict(unknown) if isinstance(unknown, Mapping) else dict.fromkeys(self.keys, unknown)
        if set(self.unknown) != set(self.keys) or not set(self.unknown.values()) <= {"error", "unknown"}:
            raise ValueError(f"unknown must be 'error' or 'unknown', got {unknown!r}.")
        self.warned: set[str] = set()
        self.output_keys = self.keys if output_keys is None else ensure_tuple_rep(output_keys, len(self.keys))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the indices.

        Raises:
            ValueError: when a name is not known and ``unknown`` is ``"error"``.
        """
        d = dict(data)
        for key, output_key in self.key_iterator(d, self.output_keys):
            name = str(d[key])
            index = self.index[key].get(name, self.spellings[key].get(name_key(name), -1))
            if index < 0 and name not in self.warned:
                self._warn_of_near(key, name)
            if index < 0 and self.unknown[key] == "error":
                raise ValueError(
                    f"{key} {name!r} is not one of the known ones, {list(self.index[key])}; "
                    "leave it out (--site), or set unknown='unknown', to treat it as a new cluster."
                )
            d[output_key] = index
        return d

    def _warn_of_near(self, key: Hashable, name: str) -> None:
        """Once for each name that several of the known ones may mean."""
        self.warned.add(name)
        if near := [known for known in self.index[key] if name_key(known) == name_key(name)]:
            warnings.warn(
                f"{key} {name!r} may be any of {near}, so that it counts as a new one: write it as one of them.",
                stacklevel=3,
            )


def _index(clusters: Sequence[str]) -> dict[str, int]:
    names = [] if isinstance(clusters, str) else [str(name) for name in clusters]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"clusters must be a list of different names, got {clusters!r}.")
    return {name: index for index, name in enumerate(names)}


def _spellings(index: Mapping[str, int]) -> dict[str, int]:
    """Index by what all spellings of a name have in common, where it is one name's alone."""
    counts = Counter(map(name_key, index))
    return {name_key(name): j for name, j in index.items() if counts[name_key(name)] == 1}


ClusterToIndexD = ClusterToIndexDict = ClusterToIndexd
