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

"""What the tests of the AD bundle share: its files, and running it in this process or by MONAI's command line."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from monai.bundle import create_workflow

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "armed_ad_mri"


def configs(step: str, model: str = "armed") -> list[str]:
    """Config files of a step; evaluation is an override of training, and the model's own file comes last."""
    steps = {"evaluate": ["train", "evaluate"], "saliency": ["train", "evaluate", "saliency"]}.get(step, [step])
    names = [*steps, *([] if model == "armed" else [model])]
    return [str(BUNDLE / "configs" / f"{name}.json") for name in names]


def workflow(step: str, model: str = "armed", **options):
    kind = "infer" if step == "inference" else "train"
    return create_workflow(config_file=configs(step, model), workflow_type=kind, logging_file=False, **options)


def run(step: str, model: str = "armed", **options) -> None:
    work = workflow(step, model, **options)  # which initializes it
    work.run()
    work.finalize()


def command(step: str, folder: Path, *launcher: str, files: list[str] | None = None, **options) -> list[str]:
    words = [*(launcher or (sys.executable,)), "-m", "monai.bundle", "run"]
    words += ["--config_file", str(files or configs(step)), "--output_dir", str(folder)]
    for name, value in options.items():
        words += [f"--{name}", str(value)]
    return words


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}
