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

"""What is said in words when the adversary harms the task, also by a trainer without handlers."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset
from monai.utils import set_determinism

from monai_armed.engines import AdversaryMonitor, ARMEDTrainer, PrepareBatchCluster
from monai_armed.engines.adversary_monitor import task_verdict
from monai_armed.losses import ARMEDLoss
from monai_armed.networks import ARMED, DFNN

EPOCHS = 16


@pytest.mark.parametrize(
    ("saved", "rank", "verdict"),
    [
        ([0.2, 0.4, 0.5], [0.5, 0.5, 0.4], ""),
        ([0.2, 0.4, 0.15], [], "losing the task: .* saves 15% .* it saved 40% before.*lower lambda_adversary"),
        ([0.01, 0.0, -0.1], [0.5], "nothing learned: for 3 epochs"),
        ([0.01, 0.0], [], ""),  # it may still begin to
        ([0.04, 0.07, 0.06], [], "little learned: in 3 epochs .* saved 7% .* with lambda_adversary 0 saves more"),
        ([0.04, 0.07, 0.1], [], ""),
        ([0.2, 0.4, 0.5], [0.5, 0.3, 0.05], "features collapsed: their effective rank is 5.0% .* it was 50.0%"),
        ([0.2, 0.4, 0.5], [0.08, 0.08, 0.07], ""),  # few dimensions from the start
        ([-0.5, -0.6, -0.6], [], "nothing learned"),  # worse than a constant
    ],
)
def test_verdicts(saved, rank, verdict):
    import re

    found = task_verdict(saved, rank)
    assert re.match(verdict, found) if verdict else not found


def _loader() -> DataLoader:
    """The label shows in a feature that shows the cluster as well: to hide the one is to lose the other."""
    rng = np.random.default_rng(0)
    items = []
    for i in range(160):
        label, cluster = int(rng.random() < 0.5), i % 2
        cluster = label if rng.random() < 0.8 else cluster
        image = rng.normal(size=4) + np.array([3.0 * label + 3.0 * cluster, 0, 0, 0])
        items.append({"image": torch.tensor(image, dtype=torch.float32), "label": label, "cluster": cluster})
    return DataLoader(Dataset(items), batch_size=16, shuffle=True)


def _trainer(weight: float, intercept: bool = False, **options) -> ARMEDTrainer:
    set_determinism(0)
    net = ARMED(DFNN(4, hidden_channels=(16,)), 2, (4,), nonlinear_slopes=False, intercept=intercept)
    return ARMEDTrainer(
        "cpu",
        EPOCHS,
        _loader(),
        net,
        torch.optim.Adam([*net.network.parameters(), *net.random_slopes.parameters()], 0.02),
        ARMEDLoss(torch.nn.BCEWithLogitsLoss(), lambda_adversary=weight),
        prepare_batch=PrepareBatchCluster(),
        adversary=net.adversary,
        adversary_optimizer=torch.optim.Adam(net.adversary.parameters(), 0.02),
        decollate=False,
        **options,
    )


def _warnings(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING and r.name.startswith("monai_armed")]


def test_an_adversary_that_takes_the_task_away_is_called_so_without_any_handler(caplog):
    trainer = _trainer(100.0)
    net = trainer.network
    net.set_reversal_strength(0.0)
    trainer.add_event_handler(Events.EPOCH_STARTED, lambda e: net.set_reversal_strength(float(e.state.epoch > 8)))
    trainer.run()
    assert any("losing the task" in said or "nothing learned" in said for said in _warnings(caplog))


def test_an_adversary_that_does_no_harm_is_not(caplog):
    trainer = _trainer(0.0)
    trainer.run()
    assert not _warnings(caplog)


def test_a_monitor_of_ones_own_takes_the_place_of_the_trainers(caplog):
    monitor = AdversaryMonitor()
    trainer = _trainer(0.0, train_handlers=[monitor])
    with caplog.at_level(logging.INFO):
        trainer.run()
    first = [r for r in caplog.records if "adversary, epoch 1:" in r.getMessage()]
    assert len(first) == 1 and trainer.adversary_monitor is monitor
    assert [row["epoch"] for row in monitor.history] == list(range(1, EPOCHS + 1))
    last = monitor.history[-1]
    assert 0.3 < last["saved"] < 1 and 0.1 < last["rank"] <= 1
    end = [r.getMessage() for r in caplog.records if "adversary, end:" in r.getMessage()]
    said = (
        f"on the training data the fixed prediction saves {last['saved']:.0%} of a constant's loss; the same training"
    )
    assert len(end) == 1 and said in end[0]


def test_the_end_says_what_the_mixed_prediction_saves_as_well(caplog):
    trainer = _trainer(0.0, intercept=True)
    with caplog.at_level(logging.INFO):
        trainer.run()
    last = trainer.adversary_monitor.history[-1]
    end = [r.getMessage() for r in caplog.records if "adversary, end:" in r.getMessage()]
    assert len(end) == 1 and f"the mixed one {last['saved_mixed']:.0%}; the same training" in end[0]
    assert last["saved"] < last["saved_mixed"] < 1  # the clusters have labels of their own


def test_what_is_saved_is_measured_against_a_constant():
    """Of a network that says the same for all, nothing."""
    trainer = _trainer(0.0)
    monitor = AdversaryMonitor()
    monitor.attach(trainer)
    head = trainer.network.network.head
    torch.nn.init.zeros_(head.weight)
    for group in trainer.optimizer.param_groups:
        group["lr"] = 0.0
    trainer.run()
    assert monitor.history[-1]["saved"] == pytest.approx(0, abs=1e-6)
    assert monitor.history[-1]["task"].startswith("nothing learned")


def test_batches_that_are_looked_at_together_say_what_each_alone_would(monkeypatch):
    found = {}
    for most in (0, 50, 2**18):  # each alone, two or three together, all of the epoch
        monkeypatch.setattr("monai_armed.engines.adversary_monitor.MOST_KEPT", most)
        trainer = _trainer(0.0)
        trainer.run()
        found[most] = pd.DataFrame(trainer.adversary_monitor.history)[["loss", "chance", "rank"]]
    for most in (50, 2**18):
        pd.testing.assert_frame_equal(found[most], found[0], rtol=1e-5)


def test_images_of_other_sizes_are_looked_at_apart():
    """As of a segmentation whose batches are cut to their images."""
    monitor = AdversaryMonitor()
    engine = Engine(lambda engine, batch: None)
    engine.loss_function, engine.state.epoch_length = ARMEDLoss(torch.nn.BCEWithLogitsLoss()), 3
    for size in (4, 4, 6):
        mask = torch.ones(2, 1, size, size)
        pred = {"adversary": torch.zeros(2, 2), "fixed": torch.zeros_like(mask)}
        engine.state.output = {"pred": pred, "label": {"label": mask, "cluster": torch.tensor([0, 1])}}
        monitor._keep(engine)
    monitor._report(engine)
    assert monitor.history[-1]["loss"] == pytest.approx(np.log(2))
    assert monitor.history[-1]["saved"] == pytest.approx(0)


def test_a_diverged_training_ends_with_a_sentence_and_the_weights_of_before():
    trainer = _trainer(0.1)
    net = trainer.network
    with torch.no_grad():
        net.network.hidden[0][0].weight[0, 0] = float("inf")
    before = {name: p.clone() for name, p in net.network.named_parameters()}
    with pytest.raises(ValueError, match=r"the loss is nan .*lower the learning rate or lambda_adversary"):
        trainer.run()
    assert all(torch.equal(p, before[name]) for name, p in net.network.named_parameters())
