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

"""The MCI conversion study: Table 3 by the comparison runner, and Figures 3, 4 and S6 from its networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from monai_armed.compare.fold_task import FoldTask, fold_config
from monai_armed.compare.runner import Comparison, check_study, compare
from monai_armed.data.replaced_file import write_csv, write_text
from monai_armed.metrics.feature_importance import gradient_at_mean, mean_absolute_gradient, probe_sign_tests
from monai_armed.metrics.mixed_model import ranef
from monai_armed.networks.adaptation import adapt
from monai_armed.networks.nets import ARMED
from monai_armed.networks.nets.cluster_network import ClusterNetwork
from monai_armed.studies.mci.partitions import PROBES
from monai_armed.studies.mci.simulator import SimulatedConversion
from monai_armed.visualize.feature_ranking import plot_feature_ranking
from monai_armed.visualize.mixed_model import (
    plot_caterpillar,
    plot_intercept_balance,
    plot_shrinkage,
    plot_slope_scale,
)

__all__ = ["adaptation_table", "conversion_study", "importance_table", "reading_table"]

MEASURES = {"gradient at mean input": gradient_at_mean, "mean absolute gradient": mean_absolute_gradient}
SHOWN = "mean absolute gradient"  # in the figures
NUM_LABELLED = 10
INTERCEPT = "(Intercept)"


@dataclass
class _Fold:
    """A trained network of a fold with its samples, encoded."""

    task: FoldTask
    network: torch.nn.Module
    names: list[str]
    sites: list[str]
    partitions: dict[str, Any]
    encode: Any
    truth: SimulatedConversion | None = None

    def samples(self, *parts: str) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
        """Inputs, labels and site names of partitions."""
        items = [item for part in parts for item in self.partitions[part]]
        x = torch.from_numpy(np.stack([self.encode(item["image"]) for item in items]))
        return x, np.array([item["label"] for item in items]), np.array([item["site"] for item in items])


def _folds(comparison: Comparison, tasks: Sequence[FoldTask], model: str, probes: bool) -> list[_Fold]:
    """The trained folds of a model, those that have not failed."""
    folds = []
    for task in tasks:
        if task.model != model or task.setting.get("probes", False) != probes:
            continue
        if task.result(comparison.bundle) is None:
            continue
        parser = fold_config(comparison.bundle, "evaluate", task)
        names = ("network", "sites", "partitions", "encode")
        network, sites, partitions, encode = (parser.get_parsed_content(name) for name in names)
        folds.append(_Fold(task, network.eval(), encode.names, sites, partitions, encode))
    return folds


def importance_table(comparison: Comparison, tasks: Sequence[FoldTask], probes: bool) -> pd.DataFrame:
    """
    Importance of each feature in the fixed part of each fold's network, on its test subjects.

    Args:
        comparison: a comparison that has been run.
        tasks: its folds.
        probes: whether of the networks that were trained with the confounded probes.

    Returns:
        a row for each model, fold, measure and feature: ``importance``, and its ``rank``, 1 for the most important.
    """
    tables = []
    for model in comparison.models:
        for fold in _folds(comparison, tasks, model, probes):
            x, _, site = fold.samples("test")
            cluster, effects = None, "fixed" if isinstance(fold.network, ARMED) else None
            if isinstance(fold.network, ClusterNetwork) and effects is None:
                index = torch.tensor([fold.sites.index(name) for name in site])
                cluster = F.one_hot(index, len(fold.sites)).float()
            for name, measure in MEASURES.items():
                table = pd.DataFrame({"feature": fold.names, "importance": measure(fold.network, x, cluster, effects)})
                table["rank"] = table["importance"].rank(ascending=False)
                tables.append(table.assign(model=model, fold=fold.task.folder.name, measure=name))
    return pd.concat(tables, ignore_index=True)


def reading_table(fold: _Fold) -> pd.DataFrame:
    """
    The random effects of one network by feature.

    Returns:
        a row a feature: ``sd`` of the posterior means of its slope over the sites, and of a simulated study the
        ``true_sd`` of the site slopes.
    """
    assert isinstance(fold.network, ARMED)
    effects = ranef(fold.network, fold.sites, fold.names)
    slopes = effects[effects["group"] == "linear"]
    table = slopes.groupby("effect", sort=False)["mean"].std(ddof=0).rename("sd").to_frame()
    if fold.truth is not None:
        table["true_sd"] = [fold.truth.slope_sd.get(name, 0.0) for name in table.index]
    return table


def _intercepts(fold: _Fold) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Random intercepts by site; and of each site the share of converters in training, its size and own estimate."""
    assert isinstance(fold.network, ARMED)
    effects = ranef(fold.network, fold.sites, fold.names)
    intercept = effects[effects["effect"] == INTERCEPT].set_index("cluster")
    x, label, site = fold.samples("train")
    with torch.no_grad():
        fixed = fold.network(x, effects="fixed")[:, 0].double().numpy()
    rows = {}
    for name in fold.sites:
        at = site == name
        if at.any():
            rows[name] = {"share": label[at].mean(), "samples": at.sum(), "estimate": _offset(label[at], fixed[at])}
    own = pd.DataFrame(rows).T
    intercept = intercept.loc[own.index].assign(note=[f"({n:.0f})" for n in own["samples"]])
    return intercept, own


def _offset(label: np.ndarray, logit: np.ndarray) -> float:
    """What has to be added to logits so that they expect as many converters as there are (half a one if none)."""
    converters = np.clip(label.sum(), 0.5, len(label) - 0.5)
    return float(brentq(lambda offset: expit(logit + offset).sum() - converters, -30, 30))


def adaptation_table(folds: Sequence[_Fold], num_labelled: int = NUM_LABELLED) -> pd.DataFrame:
    """
    What a few labelled subjects of each unseen site are worth: AUROC over all its other subjects, pooled over sites.

    Args:
        folds: trained ARMED networks; each labels other subjects.
        num_labelled: labelled subjects of a site; sites without any more subjects are left out.

    Returns:
        a row a fold: numbers of ``sites`` and test ``subjects``, and the AUROC of the prediction by the fixed effects
        alone (``population``), with the site inferred (``infer``), and adapted to the site (``adapt``).
    """
    rows = []
    for k, fold in enumerate(folds):
        network = fold.network
        assert isinstance(network, ARMED)
        x, label, site = fold.samples("unseen")
        rng = np.random.default_rng(k)
        scores: dict[str, list[np.ndarray]] = {"label": [], "population": [], "infer": [], "adapt": []}
        names = [name for name in np.unique(site) if (site == name).sum() > num_labelled]
        for name in names:
            order = rng.permutation(np.flatnonzero(site == name))
            known, rest = order[:num_labelled], order[num_labelled:]
            adapted = adapt(network, x[known], torch.from_numpy(label[known]), torch.nn.BCEWithLogitsLoss())
            index = torch.full((len(rest),), network.num_clusters)
            with torch.no_grad():
                scores["adapt"].append(adapted(x[rest], index)[:, 0].numpy())
                for policy in ("population", "infer"):
                    scores[policy].append(network(x[rest], unknown=policy)[:, 0].numpy())
            scores["label"].append(label[rest])
        if names and len(np.unique(y := np.concatenate(scores.pop("label")))) == 2:
            auroc = {policy: roc_auc_score(y, np.concatenate(parts)) for policy, parts in scores.items()}
            rows.append({"fold": fold.task.folder.name, "sites": len(names), "subjects": len(y), **auroc})
    return pd.DataFrame(rows)


def _mean_reading(folds: Sequence[_Fold], importance: pd.DataFrame) -> pd.DataFrame:
    """Slope s.d. and importance of each feature in each fold, as the figure wants them."""
    chosen = importance[(importance["model"] == "armed") & (importance["measure"] == SHOWN)]
    by_fold = {name: part.set_index("feature")["importance"] for name, part in chosen.groupby("fold")}
    return pd.concat([reading_table(fold).assign(importance=by_fold[fold.task.folder.name]) for fold in folds])


def _sentences(folds: Sequence[_Fold], reading: pd.DataFrame, adaptation: pd.DataFrame) -> list[str]:
    mean = reading.groupby(level=0).mean()
    lines = []
    if "true_sd" in mean:
        each = [spearmanr(t["sd"], t["true_sd"])[0] for t in map(reading_table, folds)]
        rank = spearmanr(mean["sd"], mean["true_sd"])[0]
        lines.append(
            f"Slope s.d., mean over folds, against the true ones: Spearman's rank correlation {rank:.2f} "
            f"(single folds {min(each):.2f} to {max(each):.2f})."
        )
    correlations = [np.corrcoef(i["mean"], own["share"])[0, 1] for i, own in map(_intercepts, folds)]
    lines.append(
        "Random intercepts against the sites' share of converters in training: Pearson's r "
        f"{np.mean(correlations):.2f} (single folds {min(correlations):.2f} to {max(correlations):.2f}; paper 0.860)."
    )
    if len(adaptation):
        a = adaptation.mean(numeric_only=True)
        lines.append(
            f"{NUM_LABELLED} labelled subjects of each of {a['sites']:.0f} unseen sites, AUROC over their other "
            f"{a['subjects']:.0f} subjects, mean over folds: population {a['population']:.3f}, site inferred "
            f"{a['infer']:.3f}, adapted {a['adapt']:.3f}."
        )
    return lines


def _probe_lines(importance: pd.DataFrame) -> list[str]:
    lines = [
        "",
        "## Ranks of the confounded probes (Fig. 4)",
        "",
        "Mean over folds of the rank among all features; 1 is the most important one. p: one-sided sign test over the "
        "probes that ARMED ranks them lower than the model.",
        "",
        "| Measure | Model | " + " | ".join(PROBES) + " | p |",
        "| --- | --- | " + " | ".join("---" for _ in PROBES) + " | --- |",
    ]
    for measure, part in importance.groupby("measure", sort=False):
        ranks = part[part["feature"].isin(PROBES)].pivot_table(index="model", columns="feature", values="rank")
        ranks = ranks.loc[list(dict.fromkeys(part["model"]))]
        tests = probe_sign_tests(ranks, "armed") if "armed" in ranks.index else pd.Series(dtype=float)
        for model, row in ranks.iterrows():
            p = f"{tests[model]:.3f}" if model in tests else ""
            lines.append(f"| {measure} | {model} | " + " | ".join(f"{row[name]:.1f}" for name in PROBES) + f" | {p} |")
    return lines


def conversion_study(comparison: Comparison) -> dict[str, Path]:
    """
    Run the whole study; what is there already is not trained again.

    Args:
        comparison: of the bundle ``armed_mci``.

    Returns:
        files by name: those of the comparison; ``"reading"`` (Markdown), ``"importance"``, ``"slopes"`` and
        ``"adaptation"`` (CSV); and the pictures ``"figure3"``, ``"figure4"``, ``"figure_s6"``, ``"balance"``,
        ``"caterpillar"`` and ``"shrinkage"`` of those settings and models that the comparison has.

    Raises:
        ValueError: when the bundle is that of another study, or as :py:func:`monai_armed.compare.runner.compare` does.
    """
    check_study(comparison, "probes", "armed_mci")
    files = compare(comparison)
    out, tasks, samples = comparison.out, comparison.tasks, comparison.samples
    settings = [setting.get("probes", False) for setting in comparison.bundle.options["settings"]]
    tables = {probes: importance_table(comparison, tasks, probes) for probes in settings}
    files["importance"] = out / "importance.csv"
    write_csv(pd.concat([t.assign(probes=probes) for probes, t in tables.items()]), files["importance"])
    lines = ["# What the networks of the MCI conversion study say", "", comparison.bundle.options["notes"], ""]
    folds = [
        replace(fold, truth=samples[fold.task.samples].partitions["truth"])  # which the folds' file does not hold
        for fold in _folds(comparison, tasks, "armed", False)
    ]
    if folds:
        reading = _mean_reading(folds, tables[False])
        adaptation = adaptation_table(folds)
        lines += _sentences(folds, reading, adaptation)
        files["slopes"], files["adaptation"] = out / "slopes.csv", out / "adaptation.csv"
        write_csv(reading.groupby(level=0, sort=False).mean(), files["slopes"], index=True)
        write_csv(adaptation, files["adaptation"])
        files["figure3"] = plot_slope_scale(reading, out / "figure3.png")
        intercept, own = _intercepts(folds[0])
        files["caterpillar"] = plot_caterpillar(intercept, out / "caterpillar.png", "random intercept, logits")
        files["balance"] = plot_intercept_balance(intercept, own["share"], out / "balance.png")
        files["shrinkage"] = plot_shrinkage(intercept, own, out / "shrinkage.png", "intercept of the site, logits")
    for probes, name in ((False, "figure_s6"), (True, "figure4")):
        if probes in tables:
            shown = tables[probes][tables[probes]["measure"] == SHOWN]
            top = 10 if probes else None
            files[name] = plot_feature_ranking(shown, out / f"{name}.png", top, PROBES)
    if True in tables:
        lines += _probe_lines(tables[True])
    files["reading"] = out / "reading.md"
    write_text("\n".join(lines) + "\n", files["reading"])
    return files
