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

from __future__ import annotations

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import ValidationHandler
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from monai_armed.engines import PrepareBatchCluster
from monai_armed.handlers import LabelAUROC, TrainingLog, ValidationLog
from monai_armed.losses import ARMEDLoss
from monai_armed.networks import ARMED, DFNN

EPOCHS, BATCHES = 3, 5


@pytest.fixture
def curves(tmp_path) -> dict[str, list]:
    """All curves of a training, points by name."""
    torch.manual_seed(0)
    x = torch.randn(40, 3)
    data = [{"image": x[i], "label": i % 2, "cluster": i % 4} for i in range(40)]
    loader = DataLoader(Dataset(data), batch_size=8)
    network = ARMED(DFNN(3), 4, (3,))
    validator = SupervisedEvaluator(
        "cpu", loader, network, prepare_batch=PrepareBatchCluster(), key_val_metric={"val_auroc": LabelAUROC()},
        val_handlers=[ValidationLog(str(tmp_path))], decollate=False,
    )  # fmt: skip
    log = TrainingLog(str(tmp_path), every=2)
    trainer = SupervisedTrainer(
        "cpu", EPOCHS, loader, network, torch.optim.Adam(network.parameters()),
        ARMEDLoss(torch.nn.BCEWithLogitsLoss()), prepare_batch=PrepareBatchCluster(), decollate=False,
        train_handlers=[ValidationHandler(1, validator), log],
    )  # fmt: skip
    trainer.run()
    found: dict[str, list] = {"history": log.handlers[0].history}
    (file,) = tmp_path.iterdir()  # one, whichever of its curves is looked for
    events = EventAccumulator(str(file)).Reload()
    found.update({name: events.Scalars(name) for name in events.Tags()["scalars"]})
    return found


def test_the_adversarys_curves_have_each_epoch_at_its_own_step(curves):
    for name, key in (("adversary_loss", "loss"), ("adversary_chance", "chance")):
        assert [point.step for point in curves[name]] == [1, 2, 3]
        values = [row[key] for row in curves["history"]]
        assert [point.value for point in curves[name]] == pytest.approx(values, rel=1e-5)


def test_the_loss_and_validation_have_curves(curves):
    assert [point.step for point in curves["loss"]] == [2, 4, 6, 8, 10, 12, 14]
    assert [point.step for point in curves["val_auroc"]] == [1, 2, 3]


def test_a_trainer_that_decollates_is_logged_too(tmp_path):
    data = [{"image": torch.randn(3), "label": i % 2, "cluster": i % 4} for i in range(16)]
    network = ARMED(DFNN(3), 4, (3,))
    SupervisedTrainer(
        "cpu", 1, DataLoader(Dataset(data), batch_size=8), network, torch.optim.Adam(network.parameters()),
        ARMEDLoss(torch.nn.BCEWithLogitsLoss()), prepare_batch=PrepareBatchCluster(),
        train_handlers=[TrainingLog(str(tmp_path))],
    ).run()  # fmt: skip
    (file,) = tmp_path.iterdir()
    assert [point.step for point in EventAccumulator(str(file)).Reload().Scalars("loss")] == [1, 2]
