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
"""A small bundle that passes."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from monai_armed.check_bundle import check_bundle

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bundle(tmp_path) -> Path:
    """A small bundle that passes."""
    folder = tmp_path / "bundle"
    for name in ("configs", "docs", "models"):
        (folder / name).mkdir(parents=True)
    original = ROOT / "bundles" / "armed_spirals"
    shutil.copy(original / "LICENSE", folder)
    shutil.copy(original / "configs" / "metadata.json", folder / "configs")
    shutil.copy(original / "configs" / "logging.conf", folder / "configs")
    (folder / "docs" / "README.md").write_text("A bundle.", encoding="utf-8")
    config = {"network_def": {"_target_": "torch.nn.Linear", "in_features": "$2 * @size", "out_features": 1}, "size": 3}
    (folder / "configs" / "train.json").write_text(json.dumps(config), encoding="utf-8")
    torch.save({"weight": torch.zeros(1, 6)}, folder / "models" / "model.pt")
    write_sums(folder)
    assert check_bundle(folder) == []
    return folder


def write_sums(folder: Path) -> None:
    digest = hashlib.sha256((folder / "models" / "model.pt").read_bytes()).hexdigest()
    (folder / "models" / "SHA256SUMS").write_text(f"{digest}  model.pt\n", encoding="utf-8")
