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

"""A small copy of the spiral bundle to compare models on: three clusters of forty points."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from monai_armed.compare.runner import Comparison
from monai_armed.compare.study_bundle import StudyBundle
from monai_armed.studies.spirals.simulator import simulate_spirals

SPIRALS = Path(__file__).parents[2] / "bundles" / "armed_spirals"
TINY = {"max_epochs": 2, "hidden_channels": [4, 4, 4], "adversary_channels": [4], "batch_size": 16}


def change(bundle: Path, name: str, **values) -> None:
    path = bundle / "configs" / f"{name}.json"
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.is_file() else {}), **values}))


def small_bundle(folder: Path) -> Path:
    """Simulation 1 alone; two models."""
    root = folder / "bundle"
    shutil.copytree(SPIRALS / "configs", root / "configs")
    simulate_spirals(1, num_clusters=3, samples_per_cluster=40, seed=5).save(folder / "sim1.npz")
    change(root, "train", dataset_dir=str(folder), **TINY)
    change(root, "compare", settings={"simulation": [1]}, models=["conventional", "armed"])
    (root / "configs" / "published.csv").unlink()
    return root


def comparison_of(bundle: Path, out: Path, **kwargs) -> Comparison:
    study = StudyBundle(bundle)
    return Comparison(study, study.models("all"), out, **{"num_folds": 2, **kwargs})
