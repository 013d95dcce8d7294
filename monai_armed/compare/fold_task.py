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

"""One fold of one model: its samples, its config, and what is known of it already."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from monai.bundle import ConfigParser

from monai_armed.bundle.model_file import read_record
from monai_armed.compare.samples_file import read_samples
from monai_armed.compare.study_bundle import StudyBundle, seen_samples
from monai_armed.data.replaced_file import write_text

__all__ = ["FEATURE_LEAK", "FoldTask", "fold_config", "fold_partitions", "load_samples"]

FEATURE_LEAK = "feature_leak"  # name of the metric


@dataclass(frozen=True)
class FoldTask:
    """One fold of one model in one setting.

    Args:
        folder: where its weights and results lie.
        model: name of the model.
        setting: overrides of the setting.
        samples: file of the setting's samples, see :py:func:`fold_partitions`.
        parts: indices of its ``"train"``, ``"val"`` and ``"test"`` samples.
        seed: seed of its start, batches and random draws.
        overrides: further config values of this fold, its hyperparameters.
        measures_leak: whether its scores have how well the last features of its test samples tell the cluster.
    """

    folder: Path
    model: str
    setting: Mapping[str, Any]
    samples: Path
    parts: Mapping[str, np.ndarray]
    seed: int
    overrides: Mapping[str, Any] = field(default_factory=dict)
    measures_leak: bool = False

    def fingerprint(self, bundle: StudyBundle, *kinds: str) -> str:
        """Hash of the samples, their parts and the configs of some kinds: all that weights, or results, depend on."""
        digest = hashlib.sha256(self.samples.read_bytes())
        for kind in kinds:
            parser = bundle.config(kind, self.model, self.setting, self.overrides, {"seed": self.seed})
            parser["bundle_root"] = None  # a bundle may be moved
            config = parser.config
            digest.update(json.dumps(config, sort_keys=True, default=str).encode())
        for name in sorted(self.parts):
            digest.update(np.asarray(self.parts[name], np.int64).tobytes())
        return digest.hexdigest()

    def result(self, bundle: StudyBundle) -> pd.DataFrame | None:
        """Its saved metrics; None if any is lacking, or they come from another config or other samples."""
        path = self.folder / "result.json"
        if not path.is_file():
            return None
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            current = saved["fingerprint"] == self.fingerprint(bundle, "train", "evaluate")
            current &= not self.measures_leak or any(row["metric"] == FEATURE_LEAK for row in saved["rows"])
            return pd.DataFrame(saved["rows"]) if current else None
        except (ValueError, KeyError, TypeError):  # cut off while it was written
            return None

    def save_result(self, bundle: StudyBundle, rows: Sequence[Mapping[str, Any]]) -> None:
        """Save its metrics, in one step."""
        result = {"fingerprint": self.fingerprint(bundle, "train", "evaluate"), "rows": rows}
        write_text(json.dumps(result), self.folder / "result.json")

    def is_trained(self, bundle: StudyBundle) -> bool:
        """Whether its weights are there and of this config: another evaluation needs no new training."""
        path = self.folder / "trained.txt"
        if not path.is_file() or path.read_text(encoding="utf-8") != self.fingerprint(bundle, "train"):
            return False
        try:
            return bool(read_record(self.folder / "model.pt"))
        except (ValueError, FileNotFoundError):  # damaged, such as by a full disk
            return False

    def was_started(self, bundle: StudyBundle) -> bool:
        """Whether a training of this config was started in its folder, which can go on from its last epoch."""
        path = self.folder / "started.txt"
        return path.is_file() and path.read_text(encoding="utf-8") == self.fingerprint(bundle, "train")

    def mark_started(self, bundle: StudyBundle) -> None:
        """Note that its training starts."""
        write_text(self.fingerprint(bundle, "train"), self.folder / "started.txt")

    def mark_trained(self, bundle: StudyBundle) -> None:
        """Note that its weights are there."""
        write_text(self.fingerprint(bundle, "train"), self.folder / "trained.txt")


@functools.lru_cache(maxsize=4)
def load_samples(path: str) -> dict[str, Any]:
    """The partitions of a setting from the file that the runner has written."""
    return read_samples(path)


def fold_partitions(samples: str, parts: str) -> dict[str, Any]:
    """
    A bundle's ``partitions`` divided anew: what the runner puts in the place of the config's own expression.

    Args:
        samples: file with the partitions, see :py:mod:`monai_armed.compare.samples_file`.
        parts: JSON file with the indices of the fold's ``"train"``, ``"val"`` and ``"test"`` samples.
    """
    partitions = load_samples(samples)
    seen = seen_samples(partitions)
    index = json.loads(Path(parts).read_text(encoding="utf-8"))
    return {**partitions, **{name: [seen[i] for i in chosen] for name, chosen in index.items()}}


def fold_config(bundle: StudyBundle, kind: str, task: FoldTask) -> ConfigParser:
    """The config of a fold, with its partitions, seed and folders; not yet evaluated."""
    task.folder.mkdir(parents=True, exist_ok=True)
    parts = task.folder / "parts.json"
    write_text(json.dumps({k: np.asarray(v).tolist() for k, v in task.parts.items()}), parts)
    parser = bundle.config(kind, task.model, task.setting, task.overrides, {"seed": task.seed})
    target = f"{fold_partitions.__module__}.{fold_partitions.__name__}"
    parser["partitions"] = {"_target_": target, "samples": str(task.samples), "parts": str(parts)}
    folders = {"output_dir": task.folder, "ckpt_dir": task.folder, "ckpt_path": task.folder / "model.pt"}
    folders["cache_dir"] = task.samples.parent / "cache"
    for name, folder in folders.items():
        if name in parser:
            parser[name] = str(folder)
    return parser
