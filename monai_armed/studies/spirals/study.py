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

"""The spiral study: Table 1 by the comparison runner, Table 2 from its networks, and Figures 2 and S2."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from monai_armed.compare.fold_task import FoldTask, fold_config
from monai_armed.compare.runner import Comparison, check_study, compare
from monai_armed.compare.study_bundle import Samples
from monai_armed.data.replaced_file import write_csv, write_text
from monai_armed.metrics.feature_importance import gradient_at_mean, mean_absolute_gradient, probe_t_tests
from monai_armed.networks.nets import ARMED
from monai_armed.networks.nets.cluster_network import ClusterNetwork
from monai_armed.studies.spirals.figures import plot_decision_boundaries, plot_spiral_data
from monai_armed.studies.spirals.simulator import SpiralData

__all__ = ["importance_table", "spiral_study"]

MEASURES = {"gradient at mean input": gradient_at_mean, "mean absolute gradient": mean_absolute_gradient}
PROBE_SIMULATION = {"simulation": 3}
BOUNDARY_SIMULATION = {"simulation": 1}
PAPER_T = {  # Table 2 of arXiv:2202.11783: X3, X4
    "conventional": (-0.232, -0.861),
    "cluster_input": (5.346, 5.042),
    "mldg": (-16.573, -14.535),
    "domain_adversarial": (4.072, 3.832),
    "armed": (12.632, 18.173),
    "without_adversary": (1.390, 0.343),
}


def _trained(comparison: Comparison, task: FoldTask) -> tuple[torch.nn.Module, dict[str, Any]]:
    """A fold's network with its weights, in evaluation mode, and its partitions."""
    parser = fold_config(comparison.bundle, "evaluate", task)
    return parser.get_parsed_content("network").eval(), parser.get_parsed_content("partitions")


def _importances(comparison: Comparison, tasks: Sequence[FoldTask]) -> dict[str, np.ndarray]:
    """Importances (folds, F) of the features in the fixed part, by each measure, on each fold's test points."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in MEASURES}
    for task in tasks:
        network, partitions = _trained(comparison, task)
        x = torch.tensor(np.stack([item["image"] for item in partitions["test"]]))
        cluster, effects = None, "fixed" if isinstance(network, ARMED) else None
        if isinstance(network, ClusterNetwork) and not isinstance(network, ARMED):
            index = torch.tensor([item["cluster"] for item in partitions["test"]])
            cluster = F.one_hot(index, network.num_clusters).float()
        for name, measure in MEASURES.items():
            found[name].append(measure(network, x, cluster, effects).numpy())
    return {name: np.stack(rows) for name, rows in found.items()}


def _restarted(task: FoldTask, out: Path, start: int, kind: str) -> FoldTask:
    """The same fold from another start, its own or the one that all folds share."""
    fold = int(task.folder.name.removeprefix("fold_"))
    folder = out / f"{kind}_{start}" / task.model / task.folder.name
    return replace(task, folder=folder, seed=1000 * start + (fold if kind == "own" else 0))


def importance_table(comparison: Comparison, tasks: Sequence[FoldTask], num_starts: int = 0) -> pd.DataFrame:
    """
    Table 2, over several starts: T of each probe against the least important true feature, paired over folds.

    Args:
        comparison: a comparison that has been run.
        tasks: its folds.
        num_starts: further starts. With each, all folds are trained once more twice: each fold from a start of its
            own, and all of them from one start that they share.

    Returns:
        One row a model, measure, kind of start (``"own"`` or ``"shared"``), start and probe.
    """
    chosen = [task for task in tasks if task.setting == PROBE_SIMULATION]
    sets = [("own", 0, chosen)]
    for start, kind in itertools.product(range(1, num_starts + 1), ("own", "shared")):
        sets.append((kind, start, [_restarted(t, comparison.out / "starts", start, kind) for t in chosen]))
    comparison.run([task for _, _, group in sets[1:] for task in group], "starts")
    rows = []
    for kind, start, group in sets:
        for model in comparison.models:
            folds = [t for t in group if t.model == model and t.result(comparison.bundle) is not None]
            for measure, importance in _importances(comparison, folds).items():
                for test in probe_t_tests(importance).to_dict("records"):
                    probe = f"X{int(test['probe']) + 1}"
                    row = {"model": model, "measure": measure, "start": kind, "run": start, "probe": probe}
                    rows.append({**row, "t": test["t"], "p": test["p"]})
    return pd.DataFrame(rows)


def importance_markdown(table: pd.DataFrame) -> str:
    """Table 2 as Markdown: T of this comparison's folds, and the range over starts beside the paper's."""
    lines = [
        "# Sensitivity to confounded probes in simulation 3 (Table 2)",
        "",
        "T of the paired t-test over folds of the least important true feature against the probe; positive: the true "
        "feature counts for more. Own: each fold has its own start. Shared: all folds have one start. Ranges are over "
        "starts. All data are simulated.",
        "",
        "| Model | Measure | Probe | T (p) | own starts, T from - to | shared start, T from - to | paper's T |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (model, measure, probe), part in table.groupby(["model", "measure", "probe"], sort=False):
        first = part[(part["start"] == "own") & (part["run"] == 0)].iloc[0]
        cells = [f"{first['t']:.1f} ({'< 0.001' if first['p'] < 0.001 else format(first['p'], '.3f')})"]
        for kind in ("own", "shared"):
            t = part.loc[part["start"] == kind, "t"]
            cells.append(f"{t.min():.1f} - {t.max():.1f} ({len(t)})" if len(t) else "n/a")
        paper = PAPER_T.get(str(model), (float("nan"),) * 2)[0 if probe == "X3" else 1]
        lines.append(f"| {model} | {measure} | {probe} | {' | '.join(cells)} | {paper:.1f} |")
    return "\n".join(lines) + "\n"


def _boundaries(comparison: Comparison, tasks: Sequence[FoldTask], samples: Mapping[Path, Samples], path: Path) -> None:
    """Figure 2 from the networks of the first fold of simulation 1."""
    predictors, data = {}, None
    for task in tasks:
        if task.setting != BOUNDARY_SIMULATION or task.folder.name != "fold_00":
            continue
        if task.result(comparison.bundle) is None:
            continue
        network, _ = _trained(comparison, task)
        data = samples[task.samples].partitions["data"]

        def predict(x: np.ndarray, cluster: int, network: torch.nn.Module = network) -> np.ndarray:
            args = (torch.full((len(x),), cluster),) if isinstance(network, ClusterNetwork) else ()
            with torch.no_grad():
                return network(torch.from_numpy(x), *args).sigmoid()[:, 0].numpy()

        predictors[task.model] = predict
    if data is not None:
        plot_decision_boundaries(predictors, data).savefig(path, dpi=150)


def spiral_study(comparison: Comparison, num_starts: int = 0) -> dict[str, Path]:
    """
    Run the whole study; what is there already is not done again.

    Args:
        comparison: of the spiral bundle.
        num_starts: see :py:func:`importance_table`.

    Returns:
        files by name: those of the comparison, ``"importance"`` (CSV), ``"importance_report"`` (Markdown),
        ``"boundaries"`` (Fig. 2) and ``"data_1"`` to ``"data_3"`` (Fig. S2).

    Raises:
        ValueError: when the bundle is that of another study, or as :py:func:`monai_armed.compare.runner.compare` does.
    """
    check_study(comparison, "simulation", "armed_spirals")
    files = compare(comparison)
    out, tasks, samples = comparison.out, comparison.tasks, comparison.samples
    table = importance_table(comparison, tasks, num_starts)
    files["importance"], files["importance_report"] = out / "importance.csv", out / "importance.md"
    write_csv(table, files["importance"])
    write_text(importance_markdown(table), files["importance_report"])
    files["boundaries"] = out / "boundaries.png"
    _boundaries(comparison, tasks, samples, files["boundaries"])
    for path, setting in {t.samples: t.setting for t in tasks}.items():
        data = samples[path].partitions["data"]
        assert isinstance(data, SpiralData)
        number = setting["simulation"]
        files[f"data_{number}"] = out / f"data_{number}.png"
        plot_spiral_data(data, f"Simulation {number}").savefig(files[f"data_{number}"], dpi=150)
    return files
