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

"""Writes ``docs/metrics.json`` of the AD bundle: the metrics of its shipped weights, which a test then reproduces.

Run it with ``python -m monai_armed.studies.ad_mri.record_metrics bundles/armed_ad_mri`` after training new weights.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd
from monai.bundle import create_workflow

from monai_armed.studies.ad_mri.simulator import simulate_ad_mri

__all__ = ["STUDIES", "evaluate_weights", "record_metrics"]

STUDIES: dict[str, dict[str, Any]] = {
    # the bundle's default study, on which the weights were trained: its test subjects and unseen sites are new to them
    "full": {"scale": 1.0, "unseen_scale": 0.3, "seed": 1},
    # seconds instead of minutes, on another draw, none of whose subjects were in training; too small to rank models
    "quick": {"scale": 0.15, "unseen_scale": 0.05, "seed": 2},
}


def evaluate_weights(bundle: str | Path, dataset: dict[str, Any], folder: str | Path) -> pd.DataFrame:
    """
    Simulate a study and evaluate a bundle's shipped weights on it.

    Args:
        bundle: folder of the bundle.
        dataset: ``"scale"``, ``"unseen_scale"`` and ``"seed"`` of the simulation.
        folder: where to simulate and to evaluate; a study that lies there already is used.

    Returns:
        the metrics, a row for each partition and prediction.
    """
    root, place = Path(bundle).resolve(), Path(folder).resolve()
    simulate_ad_mri(place / "data", **dataset)
    workflow = create_workflow(
        config_file=[str(root / "configs" / name) for name in ("train.json", "evaluate.json")],
        workflow_type="train",
        logging_file=False,
        dataset_dir=str(place / "data"),
        output_dir=str(place / "output"),
        ckpt_path=str(root / "models" / "model.pt"),
    )
    workflow.run()
    workflow.finalize()
    return pd.read_csv(place / "output" / "metrics.csv")


def record_metrics(bundle: str | Path, folder: str | Path) -> Path:
    """
    Evaluate the shipped weights on each of :py:data:`STUDIES`.

    Args:
        bundle: folder of the bundle.
        folder: where to simulate and to evaluate.

    Returns:
        the file, ``docs/metrics.json`` of the bundle: for each study its ``"dataset"`` and its ``"metrics"``.
    """
    record = {}
    for name, dataset in STUDIES.items():
        table = evaluate_weights(bundle, dataset, Path(folder) / name)
        record[name] = {"dataset": dataset, "metrics": json.loads(table.to_json(orient="records", double_precision=6))}
    path = Path(bundle) / "docs" / "metrics.json"
    path.write_text(json.dumps(record, indent=4) + "\n", encoding="utf-8")
    return path


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Write docs/metrics.json, the metrics of a bundle's shipped weights.")
    parser.add_argument("bundle", type=Path, help="folder of the bundle")
    parser.add_argument("--folder", type=Path, default=Path("metrics"), help="where to simulate and to evaluate")
    arguments = parser.parse_args()
    print(f"written to {record_metrics(arguments.bundle, arguments.folder)}")


if __name__ == "__main__":
    main()
