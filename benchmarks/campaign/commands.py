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

"""How the commands are written: the only place that knows the form of MONAI's and of our command lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = {name: ROOT / "bundles" / f"armed_{name}" for name in ("ad_mri", "cell_aec", "mci", "spirals")}

# The shortest training of each bundle that still has all its parts.
SHORT = {
    "ad_mri": {"max_epochs": "2", "batch_size": "8", "z_predictor#max_epochs": "1", "warm_up_epochs": "1"},
    "cell_aec": {"max_epochs": "2", "batch_size": "8", "z_predictor#max_epochs": "1", "erase_epoch": "2"},
    "mci": {"max_epochs": "2", "z_predictor#max_epochs": "1"},
    "spirals": {"max_epochs": "2", "batch_size": "16"},
}


def config_files(bundle: str, step: str, model: str = "armed") -> list[str]:
    """Config files of ``"train"``, ``"evaluate"`` or ``"inference"``; the model's override follows."""
    names = ["train", step] if step == "evaluate" else [step]  # what is evaluated stands in train.json
    return [
        str(BUNDLES[bundle] / "configs" / f"{name}.json") for name in [*names, *([] if model == "armed" else [model])]
    ]


def bundle_command(
    bundle: str, step: str, options: Mapping[str, object], model: str = "armed", further: Sequence[str] = ()
) -> list[str]:
    """Words after ``python`` of MONAI's command; values are given as text, as a shell does; override files last."""
    files = [*config_files(bundle, step, model), *further]
    words = ["-m", "monai.bundle", "run", "--config_file", str(files) if len(files) > 1 else files[0]]
    for name, value in options.items():
        words += [f"--{name}", str(value)]
    return words


def package_command(name: str, options: Mapping[str, object]) -> list[str]:
    """Words after ``python`` of a command of ours; a list is an option given several times, True one without value."""
    words = ["-m", "monai_armed", name]
    for option, value in options.items():
        values: Sequence[object] = value if isinstance(value, list) else [value]
        for one in values:
            words += [f"--{option}"] if one is True else [f"--{option}={one}"]
    return words
