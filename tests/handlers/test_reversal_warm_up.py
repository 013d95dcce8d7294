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
from ignite.engine import Engine

from monai_armed.handlers import ReversalWarmUp
from monai_armed.networks.nets import ARMED, DFNN


def test_strength_follows_ganin():
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
