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

"""State dicts of versions before the parts had names of their own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.parallel import DataParallel

from monai_armed.handlers import load_weights
from monai_armed.networks import ARMED, DFNN, ZPredictor


def _network(seed: int) -> ARMED:
    torch.manual_seed(seed)
    net = ARMED(DFNN(4), 3, (4,), adversary="dense")
    nn.init.normal_(net.random_effects.loc)
    return net.attach_z_predictor(ZPredictor(DFNN(4, 3), 3)).eval()


def _older(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    now = {"adversary.classifier.": "adversary.", "random_slopes.cluster.": "random_slopes.", "clusters.z_": "z_"}
    for new, old in now.items():
        state = {name.replace(new, old): value for name, value in state.items()}
    return state


def test_they_load_and_predict_the_same(tmp_path):
    net, x = _network(0), torch.randn(5, 4)
    older = _older(net.state_dict())
    assert {"random_slopes.effects.loc", "adversary.layers.0.weight", "z_predictor.temperature"} <= older.keys()
    other = _network(1)
    other.load_state_dict(older)
    torch.testing.assert_close(other(x), net(x), rtol=0, atol=0)
    torch.save(older, tmp_path / "model.pt")
    torch.testing.assert_close(load_weights(_network(2), tmp_path / "model.pt")(x), net(x), rtol=0, atol=0)
    wrapped = DataParallel(_network(3))
    wrapped.load_state_dict({f"module.{name}": value for name, value in older.items()})
    torch.testing.assert_close(wrapped.module(x), net(x), rtol=0, atol=0)
    assert set(older) == set(_older(net.state_dict()))  # what is loaded stays as it was


def test_weights_of_before_a_learned_prior_had_a_stretch_load(tmp_path):
    net = ARMED(DFNN(4), 3, (4,), adversary=None, random_effects={"learn_prior": True}).eval()
    older = {name: value for name, value in net.state_dict().items() if not name.endswith("log_stretch")}
    assert len(older) < len(net.state_dict())
    torch.save(older, tmp_path / "model.pt")
    load_weights(net, tmp_path / "model.pt")
    del older["random_slopes.cluster.effects.loc"]
    torch.save(older, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r'Missing key.*: "random_slopes\.cluster\.effects\.loc"'):
        load_weights(net, tmp_path / "model.pt")


def test_a_classifier_of_ones_own_may_have_parts_of_the_same_names():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = nn.Linear(4, 3)

        def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
            return self.classifier(features[-1])

    nets = [ARMED(DFNN(4), 3, (4,), adversary=Own(), feature_layers=["hidden.2"]) for _ in range(2)]
    older = {name.replace("adversary.classifier.", "adversary."): v for name, v in nets[0].state_dict().items()}
    for state in (older, nets[0].state_dict()):
        nn.init.zeros_(nets[1].adversary.classifier.classifier.weight)
        nets[1].load_state_dict(state)
        given = nets[0].adversary.classifier.classifier.weight
        torch.testing.assert_close(nets[1].adversary.classifier.classifier.weight, given)


def test_another_network_is_still_another():
    with pytest.raises(RuntimeError, match="Unexpected key"):
        ARMED(DFNN(4), 3, (4,), adversary=None).load_state_dict(_older(_network(0).state_dict()))
