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


"""Handlers that say what the network has learned of the clusters, on a simulated table in real training."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer

from monai_armed.engines import ARMEDTrainer, PrepareBatchCluster
from monai_armed.engines.adversary_monitor import adversary_verdict
from monai_armed.handlers import AdversaryMonitor, ClusterAudit, RandomEffectsWriter
from monai_armed.losses import ARMEDLoss, GaussianLikelihoodLoss
from monai_armed.metrics.mixed_model import VarCorr, ranef
from monai_armed.networks import ARMED, DFNN

SIZES = (60, 30, 10)


def loader(seed: int = 0, tells: bool = True) -> DataLoader:
    rng = np.random.default_rng(seed)
    items = []
    for cluster in np.repeat(range(3), SIZES):
        label = float(rng.random() < (0.2, 0.5, 0.8)[cluster])
        image = rng.normal(size=4) + np.array([3.0 * tells * (cluster - 1), 0, label, 0])
        items.append({"image": torch.tensor(image, dtype=torch.float32), "label": label, "cluster": int(cluster)})
    return DataLoader(Dataset(items), batch_size=20, shuffle=True)


def trainer(net: ARMED, data: DataLoader, kind=ARMEDTrainer, learning_rate: float = 0.02, epochs: int = 6):
    adversary = {id(p) for p in net.adversary.parameters()} if net.adversary is not None else set()
    options = {}
    if kind is ARMEDTrainer and adversary:
        optimizer = torch.optim.Adam(net.adversary.parameters(), lr=learning_rate)
        options = {"adversary": net.adversary, "adversary_optimizer": optimizer}
        parameters = [p for p in net.parameters() if id(p) not in adversary]
    else:
        parameters = list(net.parameters())
    return kind(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=data,
        network=net,
        optimizer=torch.optim.Adam(parameters, lr=learning_rate),
        loss_function=ARMEDLoss(torch.nn.BCEWithLogitsLoss()),
        prepare_batch=PrepareBatchCluster(),
        **options,
    )


@pytest.mark.parametrize("kind", [ARMEDTrainer, SupervisedTrainer])
def test_an_adversary_that_nothing_hinders_wins(kind, caplog):
    torch.manual_seed(0)
    net = ARMED(DFNN(4, 1, (16,)), 3, (4,), adversary="dense")
    engine = trainer(net, loader(), kind, learning_rate=0.05, epochs=25)
    net.set_reversal_strength(0.0)
    monitor = AdversaryMonitor()
    monitor.attach(engine)
    with caplog.at_level(logging.INFO):
        engine.run()
    assert [row["epoch"] for row in monitor.history] == list(range(1, 26))
    assert monitor.history[-1]["verdict"].startswith("wins")
    shares = np.array(SIZES) / sum(SIZES)
    entropy = -(shares * np.log(shares)).sum()
    assert engine.state.metrics["adversary_chance"] == pytest.approx(entropy) and entropy < math.log(3)
    assert engine.state.metrics["adversary_loss"] == monitor.history[-1]["loss"] < 0.5 * entropy
    said = [record.message for record in caplog.records if record.name.startswith("monai_armed")]
    *verdicts, end = said
    assert verdicts and all("adversary, epoch" in message for message in verdicts) and "wins" in verdicts[-1]
    assert "adversary, end" in end
    assert len(said) < 25  # not once an epoch


def test_an_adversary_that_cannot_learn_is_called_so():
    torch.manual_seed(0)
    net = ARMED(DFNN(4, 1, (16,)), 3, (4,), adversary="dense")
    last = [m for m in net.adversary.modules() if isinstance(m, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor(SIZES).log())  # it knows the sizes of the clusters, and nothing of the sample
    net.adversary.requires_grad_(False)
    engine = trainer(net, loader(), SupervisedTrainer)
    monitor = AdversaryMonitor()
    monitor.attach(engine)
    engine.run()
    assert monitor.history[-1]["ratio"] == pytest.approx(1, abs=1e-5)
    assert monitor.history[-1]["verdict"].startswith("at chance since the start")


def test_chance_of_a_class_conditional_adversary_is_within_class():
    torch.manual_seed(0)
    net = ARMED(DFNN(4, 1, (16,)), 3, (4,), adversary="dense", num_classes=2)
    data = loader()
    monitor, engine = AdversaryMonitor(), trainer(net, data)
    monitor.attach(engine)
    engine.run()
    table = pd.DataFrame([{k: item[k] for k in ("label", "cluster")} for item in data.dataset.data])
    expected = 0.0
    for _, part in table.groupby("label"):
        share = part["cluster"].value_counts(normalize=True)
        expected -= len(part) / len(table) * (share * np.log(share)).sum()
    assert monitor.history[0]["chance"] == pytest.approx(expected)


def test_one_that_says_the_same_for_every_cluster_has_not_learned_either():
    torch.manual_seed(0)
    net = ARMED(DFNN(4, 1, (16,)), 3, (4,), adversary="dense")
    last = [m for m in net.adversary.modules() if isinstance(m, torch.nn.Linear)][-1]
    for parameter in last.parameters():
        torch.nn.init.zeros_(parameter)
    net.adversary.requires_grad_(False)
    engine, monitor = trainer(net, loader(), SupervisedTrainer), AdversaryMonitor()
    monitor.attach(engine)
    engine.run()
    assert monitor.history[-1]["loss"] == pytest.approx(math.log(3), abs=1e-5)
    assert monitor.history[-1]["verdict"].startswith("at chance since the start")


def test_verdicts():
    begins = {
        "learns": [1.0, 0.8],
        "wins": [1.0, 0.3],
        "at chance since the start": [1.0, 0.99],
        "at chance again": [1.0, 0.6, 0.98],
        "worse than guessing": [1.0, 0.6, 1.3],
        "not finite": [1.0, float("nan")],
    }
    for beginning, ratios in begins.items():
        assert adversary_verdict(ratios).startswith(beginning)


def test_networks_without_an_adversary_are_left_alone():
    net = ARMED(DFNN(4), 3, (4,), adversary=None)
    engine, monitor = trainer(net, loader()), AdversaryMonitor()
    monitor.attach(engine)
    engine.run()
    assert monitor.history == [] and "adversary_loss" not in engine.state.metrics


def test_random_effects_are_written_when_training_ends(tmp_path, monkeypatch):
    torch.manual_seed(0)
    net = ARMED(DFNN(4), 3, (4,), adversary=None, linear_slopes=True)
    engine = trainer(net, loader())
    likelihood = GaussianLikelihoodLoss(0.7)
    names = ["age", "sex", "apoe", "mmse"]
    RandomEffectsWriter(tmp_path / "new", net, ["a", "b", "c"], names, likelihood).attach(engine)
    replaced = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (replaced.append((str(a), str(b))), replace(a, b)))
    engine.run()
    read = pd.read_csv(tmp_path / "new" / "ranef.csv")
    pd.testing.assert_frame_equal(read, ranef(net, ["a", "b", "c"], names), check_dtype=False, rtol=1e-6)
    components = pd.read_csv(tmp_path / "new" / "varcorr.csv")
    pd.testing.assert_frame_equal(components, VarCorr(net, 0.7, names), check_dtype=False, rtol=1e-6)
    assert [Path(a).parent == Path(b).parent and a.endswith(".part") for a, b in replaced] == [True, True]
    assert [Path(b).name for _, b in replaced] == ["ranef.csv", "varcorr.csv"]
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["ranef.csv", "varcorr.csv"]


def test_no_random_effects_no_file(tmp_path):
    engine = Engine(lambda engine, batch: None)
    RandomEffectsWriter(tmp_path / "new", DFNN(4)).attach(engine)
    adversarial = ARMED(DFNN(4), 3, (4,), nonlinear_slopes=False, intercept=False)
    RandomEffectsWriter(tmp_path / "new", adversarial).attach(engine)
    engine.run([0])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("tells", [True, False])
def test_the_audit_is_written_and_said(tells, tmp_path, caplog):
    torch.manual_seed(0)
    net = ARMED(DFNN(4, 1, (16,)), 3, (4,), adversary="dense")
    engine = Engine(lambda engine, batch: None)
    ClusterAudit(tmp_path, net, loader(0, tells), loader(1, tells)).attach(engine)
    with caplog.at_level(logging.INFO):
        engine.run([0])
    table = pd.read_csv(tmp_path / "audit.csv")
    assert set(table["layer"]) == set(net.feature_layers) and set(table["class"]) == {"all", "0", "1"}
    everything = table[(table["class"] == "all") & (table["probe"] == "logistic")]
    assert ((everything["p"] < 0.01) == tells).all()
    said = [r.message for r in caplog.records if "over all classes" in r.message]
    assert said and all(("names the cluster" in sentence) for sentence in said if tells)
