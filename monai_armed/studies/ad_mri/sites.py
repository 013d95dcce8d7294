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

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any

from monai_armed.studies.ad_mri.cohort import draw_cohort
from monai_armed.studies.ad_mri.partitions import ad_mri_partitions

__all__ = ["ad_mri_sites"]


def ad_mri_sites(
    dataset: str | os.PathLike[str],
    simulated_scale: float | None = None,
    seen_sites: Collection[str] | None = None,
    reading: Mapping[str, Any] | None = None,
) -> list[str]:
    """
    Names of the seen sites in the order of their index, as
    :py:func:`monai_armed.studies.ad_mri.ad_mri_partitions` has them, but without a single image: whoever wants the
    network alone need not wait for a simulation.

    Args:
        dataset: folder of a BIDS tree, or a CSV file.
        simulated_scale: given where the folder is to be filled with the simulated study.
        seen_sites: names of the seen sites, if the user gives them.
        reading: how the tables are read, see :py:func:`monai_armed.studies.ad_mri.ad_mri_partitions`.

    Returns:
        the names.
    """
    if simulated_scale is not None:
        names = {s.site.name for s in draw_cohort(simulated_scale, seed=0) if s.site.role == "seen"}
        return sorted(names if seen_sites is None else map(str, seen_sites))
    return list(ad_mri_partitions(dataset, seen_sites=seen_sites, reading=reading)["sites"])
