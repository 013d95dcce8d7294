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

"""Models trained on the very small simulated AD study: what they predict means nothing."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
from ad_mri_runs import configs, run
from monai.bundle import ConfigParser


@pytest.fixture
def untouched_interpreter(monkeypatch):
    """Running a bundle puts its folder into ``sys.path``."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="session")
def options(study, tmp_path_factory) -> dict:
    """What all runs share."""
    return {"dataset_dir": str(study), "cache_dir": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="session")
def trained(options, tmp_path_factory):
    """Folder of a model of a name, trained for one epoch when first asked for."""
    folders: dict[str, Path] = {}

    def folder_of(model: str = "armed") -> Path:
        if model not in folders:
            folders[model] = tmp_path_factory.mktemp(model)
            short = {"max_epochs": 1, "batch_size": 8, "z_predictor#max_epochs": 1}
            run("train", model, output_dir=str(folders[model]), **short, **options)
        return folders[model]

    return folder_of


@pytest.fixture
def image(study) -> Path:
    return sorted(study.glob("sub-U06*/**/*_T1w.nii.gz"))[0]


@pytest.fixture
def inference_network(trained):
    parser = ConfigParser()
    parser.read_config(configs("inference"))
    parser["ckpt_path"] = str(trained() / "model.pt")
    return parser.get_parsed_content("network").eval()
