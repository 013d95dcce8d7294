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

"""The walk of a batch names every file that a batch passes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from monai.networks.nets import DenseNet121
from monai.utils import set_determinism

from monai_armed import __file__ as package
from monai_armed.engines import ARMEDTrainer, PrepareBatchCluster
from monai_armed.losses import ARMEDLoss
from monai_armed.networks.nets import ARMED

WALK = Path(__file__).parents[2] / "docs" / "walk.md"


@pytest.fixture
def trainer():
    set_determinism(0)
    net = ARMED(DenseNet121(2, 1, 1), num_clusters=3, input_shape=(1, 32, 32), num_classes=2)
    batch = {
        "image": torch.rand(4, 1, 32, 32),
        "label": torch.tensor([[0.0], [1.0], [0.0], [1.0]]),
        "cluster": torch.tensor([0, 1, 2, 0]),
    }
    rest = [p for name, p in net.named_parameters() if not name.startswith("adversary")]
    return ARMEDTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=[batch],
        network=net,
        optimizer=torch.optim.SGD(rest, 1e-3),
        loss_function=ARMEDLoss(torch.nn.BCEWithLogitsLoss()),
        prepare_batch=PrepareBatchCluster(),
        adversary=net.adversary,
        adversary_optimizer=torch.optim.SGD(net.adversary.parameters(), 1e-3),
        decollate=False,
    )


def test_the_walk_names_every_file_that_a_batch_passes(trainer):
    root, passed = Path(package).parent, set()

    def look(frame, event, argument):
        file = Path(frame.f_code.co_filename)
        if event == "call" and root in file.parents:
            passed.add(file.relative_to(root).as_posix())

    trainer.add_event_handler(Events.ITERATION_STARTED, lambda: sys.setprofile(look))
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: sys.setprofile(None))
    trainer.run()
    assert {"engines/trainer.py", "networks/nets/armed.py", "losses/armed_loss.py"} <= passed
    text = WALK.read_text(encoding="utf-8")
    assert not [file for file in sorted(passed) if f"monai_armed/{file}" not in text]
