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

"""Pooled, federated and site-only training of a bundle on the same simulated hospitals, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset
from sklearn.metrics import roc_auc_score

from ..bundle.models import load_model
from ..compare.study_bundle import StudyBundle
from ..data.replaced_file import write_csv
from ..metrics.leak import mean_cluster_leak
from ..networks.nets.armed import ARMED
from .hospital import Hospital, fit_own_effects
from .hospital_config import hospital_config, hospital_training
from .local import run_locally, without_logs
from .message import Message
from .rounds import federate
from .shared import load_shared, shared_state

__all__ = ["compare_federated"]


class _Trained(NamedTuple):
    """A trained network and the config of its training."""

    network: ARMED
    parser: ConfigParser


def compare_federated(
    study: StudyBundle,
    folder: Path,
    hospitals: int,
    rounds: int,
    local_epochs: int,
    run: Callable[..., Any] = run_locally,
) -> pd.DataFrame:
    """
    Train a bundle in three ways: with the data of all hospitals pooled, federated, and in each hospital alone; and test
    all on the same samples. Prints the table and writes it as ``federated.csv``.

    Args:
        study: the bundle, see :py:func:`monai_armed.federated.hospital_config.hospitals_study`.
        folder: where everything is written.
        hospitals: how many there are; the bundle's clusters are shared out among them.
        rounds, local_epochs: see :py:func:`monai_armed.federated.federate`. Alone, a hospital trains as many epochs.
        run: runs the federated training, such as :py:func:`monai_armed.federated.local.run_locally`.

    Returns:
        a row for each way: AUROC of the mixed and of the fixed prediction over the test samples of all hospitals; the
        leak, the AUROC with which the fixed logit tells a cluster from the others among test samples of class 0, mean
        over clusters; and the deviation of the random effects: of what they add to the logits of the test samples, the
        root mean square difference from a reference relative to it. The reference is the pooled network, from which
        one that was trained from another start differs, too; and for the last row effects that were fitted to all data
        around the fixed part of the federated network.
    """
    run(study, folder / "federated", hospitals, rounds, local_epochs)
    pooled = _train_alone(hospital_config(study, folder / "pooled"), None)
    federated, alone = [], []
    for number in range(hospitals):
        name = f"site-{number + 1}"
        federated.append(_loaded(hospital_config(study, folder / "federated" / name, number, hospitals)))
        config = hospital_config(study, folder / "alone" / name, number, hospitals)
        alone.append(_train_alone(config, rounds * local_epochs))
    again = _train_alone(hospital_config(study, folder / "pooled_again"), None, start=1)
    networks = {
        "pooled": [pooled],
        "federated": federated,
        "each hospital alone": alone,
        "pooled, another start": [again],
    }
    tables = {name: _scores(places) for name, places in networks.items()}
    rows = [{"training": name, **_figures(table, tables["pooled"])} for name, table in tables.items()]
    refitted = _scores([_refitted(pooled, federated[0])])
    rows.append({"training": "federated, against effects fitted to all data around its fixed part"})
    rows[-1]["random_effects_deviation"] = _deviation(tables["federated"], refitted)
    frame = pd.DataFrame(rows)
    write_csv(frame, folder / "federated.csv")
    print(frame.to_string(index=False, float_format="%.3f", na_rep=""))
    return frame


def _train_alone(parser: ConfigParser, epochs: int | None, start: int = 0) -> _Trained:
    """Train in one place, as a federation of one; by default for as many epochs as the bundle does."""
    print(f"training alone: {parser['output_dir']}")
    hospital = Hospital(hospital_training(parser, start))
    epochs = parser.get_parsed_content("max_epochs") if epochs is None else epochs

    def ask(message: Message) -> dict[str, Message]:
        with without_logs():
            return {"alone": hospital.answer(message)}

    federate(ask, 1, epochs, say=lambda text: None)
    return _loaded(parser)


def _loaded(parser: ConfigParser) -> _Trained:
    network = parser.get_parsed_content("network_def")
    path = Path(parser.get_parsed_content("ckpt_dir")) / "model.pt"
    z_predictor = parser.get_parsed_content("z_predictor#network_def") if "z_predictor#network_def" in parser else None
    return _Trained(load_model(network, path, z_predictor=z_predictor).eval(), parser)  # type: ignore[arg-type]


def _refitted(pooled: _Trained, federated: _Trained) -> _Trained:
    """The pooled network with the fixed part and prior of the federated one, and random effects of all data for it."""
    network, erasure = pooled.network, pooled.parser.get_parsed_content("training").erasure
    load_shared(network, shared_state(federated.network))
    fit_own_effects(network, erasure)
    return pooled


@torch.no_grad()
def _scores(places: Sequence[_Trained]) -> pd.DataFrame:
    """Label, cluster (numbered through), mixed and fixed logits of the test samples, ordered by cluster."""
    tables, first = [], 0
    for network, parser in places:
        partitions = parser.get_parsed_content("partitions")
        data = Dataset(partitions["test"], parser.get_parsed_content("validate#preprocessing"))
        for batch in DataLoader(data, batch_size=1000):
            x, target, _, options = parser.get_parsed_content("prepare_batch")(batch, "cpu")
            logits = {effects: network(x, options["cluster"], effects=effects) for effects in ("mixed", "fixed")}
            columns = {"label": target["label"], **logits}
            table = pd.DataFrame({name: np.asarray(value).reshape(-1) for name, value in columns.items()})
            tables.append(table.assign(cluster=first + np.asarray(target["cluster"])))
        first += network.num_clusters
    return pd.concat(tables).sort_values("cluster", kind="stable", ignore_index=True)


def _figures(table: pd.DataFrame, reference: pd.DataFrame) -> dict[str, float]:
    controls = table[table["label"] == 0]
    return {
        "auroc_mixed": float(roc_auc_score(table["label"], table["mixed"])),
        "auroc_fixed": float(roc_auc_score(table["label"], table["fixed"])),
        "leak": mean_cluster_leak(controls["fixed"], controls["cluster"]),
        "random_effects_deviation": _deviation(table, reference),
    }


def _deviation(table: pd.DataFrame, reference: pd.DataFrame) -> float:
    own, other = (part["mixed"] - part["fixed"] for part in (table, reference))
    return float(np.sqrt((own - other).pow(2).mean() / other.pow(2).mean()))
