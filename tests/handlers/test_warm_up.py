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
from ignite.engine import Engine, Events
from monai.handlers import ParamSchedulerHandler

from monai_armed.handlers import LinearWarmUp, ReversalWarmUp
from monai_armed.losses import ARMEDLoss
from monai_armed.networks import ARMED, DFNN


def strengths(handler, network, loss, epochs: int = 5) -> list[tuple[float, float]]:
    trainer = Engine(lambda engine, batch: None)
    handler.attach(trainer)
    seen: list[tuple[float, float]] = []
    read = lambda engine: seen.append((float(network.adversary.reversal_strength), loss.kl_strength))  # noqa: E731
    trainer.add_event_handler(Events.ITERATION_COMPLETED, read)
    trainer.run(range(4), max_epochs=epochs)
    return seen


@pytest.mark.parametrize("epochs", [0, 1, 3])
def test_it_is_monais_linear_schedule(epochs):
    network, loss = ARMED(DFNN(3), 4, (3,)), ARMEDLoss(torch.nn.BCEWithLogitsLoss())
    got = strengths(LinearWarmUp(network, loss, epochs), network, loss)
    schedule = {"initial_value": 0.0, "step_constant": 0, "step_max_value": 4 * epochs, "max_value": 1.0}
    wanted = ParamSchedulerHandler(
        network.adversary.set_reversal_strength, "linear", schedule, event=Events.ITERATION_STARTED
    )
    assert [strength for strength, _ in got] == [strength for strength, _ in strengths(wanted, network, loss)]
    assert all(a == pytest.approx(b) for a, b in got)
    assert got[-1] == (1.0, 1.0) and (epochs == 0) == (got[0] == (1.0, 1.0))


def test_what_has_no_strength_is_left_alone():
    assert not LinearWarmUp(DFNN(3), torch.nn.BCEWithLogitsLoss(), 3).setters
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        LinearWarmUp(DFNN(3), torch.nn.BCEWithLogitsLoss(), -1)


def test_the_reversals_strength_follows_ganin():
    warm_up = ReversalWarmUp(torch.nn.Identity())
    assert warm_up.strength(0) == 0
    assert warm_up.strength(0.5) == pytest.approx(0.98661, abs=1e-5)
    assert 0.999 < warm_up.strength(1) < 1


def test_it_is_set_before_each_iteration():
    network = ARMED(DFNN(2), 3, (2,), adversary="dense")
    warm_up, seen = ReversalWarmUp(network), []
    engine = Engine(lambda engine, batch: seen.append(float(network.adversary.reversal_strength)))
    warm_up.attach(engine)
    engine.run(range(5), max_epochs=2)
    assert seen == pytest.approx([warm_up.strength(k / 10) for k in range(10)])


def test_networks_without_adversary_are_left_alone():
    engine = Engine(lambda engine, batch: None)
    ReversalWarmUp(DFNN(2)).attach(engine)
    engine.run(range(2))
    with pytest.raises(ValueError, match="rate must be positive"):
        ReversalWarmUp(DFNN(2), rate=0)
