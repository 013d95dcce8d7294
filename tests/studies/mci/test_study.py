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

"""The MCI study on two short folds: its tables, figures and sentences; the fitted features of each fold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from monai_armed.bundle import read_record
from monai_armed.compare.fold_task import fold_config
from monai_armed.compare.runner import Comparison
from monai_armed.compare.study_bundle import StudyBundle
from monai_armed.studies.mci.partitions import PROBES
from monai_armed.studies.mci.study import conversion_study

BUNDLE = Path(__file__).parents[3] / "bundles" / "armed_mci"
SHORT = {"max_epochs": 2, "data_seed": 9}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    comparison = Comparison(
        StudyBundle(BUNDLE, (), SHORT), ["cluster_input", "armed"], out, num_folds=2, split="grouped"
    )
    return comparison, conversion_study(comparison)


@pytest.mark.slow
def test_the_whole_study(study):
    comparison, files = study
    assert not comparison.failures and all(path.is_file() for path in files.values())
    wanted = {"figure3", "figure4", "figure_s6", "balance", "caterpillar", "shrinkage", "adaptation", "reading"}
    assert wanted < set(files)
    importance = pd.read_csv(files["importance"])
    assert set(importance.loc[importance["probes"], "feature"]) > set(PROBES)
    assert not set(importance.loc[~importance["probes"], "feature"]) & set(PROBES)
    ranks = importance.groupby(["probes", "model", "fold", "measure"])["rank"]
    assert (ranks.sum() == ranks.size() * (ranks.size() + 1) / 2).all()
    slopes = pd.read_csv(files["slopes"], index_col=0)
    assert slopes.loc["CDRSB_bl", "true_sd"] == 0.5 and (slopes["sd"] > 0).all() and len(slopes) == 37
    adaptation = pd.read_csv(files["adaptation"])
    assert len(adaptation) == 2 and adaptation[["population", "infer", "adapt"]].stack().between(0, 1).all()
    text = files["reading"].read_text()
    assert "Spearman" in text and "Pearson's r" in text and "| mean absolute gradient | cluster_input |" in text
    summary = pd.read_csv(files["summary"])
    armed = summary[(summary["model"] == "armed") & (summary["metric"] == "auroc") & ~summary["probes"].astype(bool)]
    assert armed.set_index("partition")["paper"].to_dict() == {"seen": 0.926, "unseen": 0.837}


@pytest.mark.slow
def test_each_fold_learns_means_from_its_own_training_part(study):
    comparison, _ = study
    tasks, samples = comparison.plan()
    means = []
    for task in tasks[:2]:
        columns = read_record(task.folder / "model.pt")["features"]
        age = next(c for c in columns if c["name"] == "AGE")
        seen = samples[task.samples].seen
        assert age["mean"] == pytest.approx(np.mean([seen[i]["image"]["AGE"] for i in task.parts["train"]]))
        means.append(age["mean"])
    assert means[0] != means[1]


@pytest.mark.slow
def test_a_stacked_fold_was_trained_on_its_own_features(study):
    """The validation loss of the stack is that of the kept weights on the validation part as the fold encodes it."""
    comparison, _ = study
    for task in [t for t in comparison.plan()[0] if t.model == "armed"]:
        parser = fold_config(comparison.bundle, "evaluate", task)
        network, encode, partitions = (parser.get_parsed_content(name) for name in ("network", "encode", "partitions"))
        x = torch.from_numpy(np.stack([encode(item["image"]) for item in partitions["val"]]))
        label, cluster = (torch.tensor([item[key] for item in partitions["val"]]) for key in ("label", "cluster"))
        with torch.no_grad():
            loss = F.binary_cross_entropy_with_logits(network.eval()(x, cluster)[:, 0], label.float())
        history = json.loads((task.folder / "history.json").read_text())
        assert loss.item() == pytest.approx(min(history["val_loss"]), rel=1e-5)
