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
"""Partitions of a data list as they are to a trained model."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["held_out", "study_name"]


def study_name(marker: Path) -> str:
    """
    Which draw of a simulation data are, since the subjects of all draws have the same names.

    Args:
        marker: file in which the simulator keeps its parameters; without it the data are a user's, ``"data"``.
    """
    return f"simulated draw {json.loads(marker.read_text())['seed']}" if marker.is_file() else "data"


def held_out(
    datalist: Sequence[Mapping[str, Any]],
    trained: Mapping[str, Any],
    seen: Collection[str] | None = None,
    site_key: str = "site",
    subject_key: str = "subject",
) -> dict[str, list]:
    """
    Divide a data list by what its subjects were to a trained model.

    Args:
        datalist: dicts with a site and a subject.
        trained: what the model was trained on, from :py:func:`monai_armed.bundle.provenance`.
        seen: names of the seen sites, if the user gives them.
        site_key: key of the site.
        subject_key: key of the subject.

    Returns:
        ``"train"`` and ``"val"``, the subjects that the model was trained and validated on; of the others ``"test"``,
        at sites that it knows, and ``"unseen"``, at other sites.

    Raises:
        ValueError: when ``seen`` are not the model's sites, or the model was trained on all.
    """
    sites = trained["sites"]
    if seen is not None and set(seen) != set(sites):
        raise ValueError(
            f"the model was trained on {sites}, not on {sorted(seen)}: there is no need to name them again."
        )
    parts: dict[str, list] = {"train": [], "val": [], "test": [], "unseen": []}
    role = {subject: name for name in ("train", "val") for subject in trained[name]}
    for item in datalist:
        known = role.get(item[subject_key])  # also at another site: the subject is known
        parts[known or ("test" if item[site_key] in sites else "unseen")].append(item)
    if not parts["test"] and not parts["unseen"]:
        raise ValueError(
            f"the model was trained on the {subject_key} of every one of the {len(datalist)} images: none is left."
        )
    return parts
