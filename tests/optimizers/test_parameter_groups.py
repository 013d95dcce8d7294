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

from monai_armed.networks import ARMED, DFNN, ClusterInput
from monai_armed.networks.nets import AEC, ARMEDAEC, CNN
from monai_armed.optimizers import adversary_optimizer, parameter_groups, staged_cosine


def names(network: torch.nn.Module, groups: list[dict]) -> dict[float | None, set[str]]:
    """Names of the parameters by learning rate."""
    of = {id(p): name for name, p in network.named_parameters()}
    return {group.get("lr"): {of[id(p)] for p in group["params"]} for group in groups}


def test_each_part_has_its_own_learning_rate():
    network = ARMED(DFNN(3), 4, (3,))
    rates = {"random_effects": 0.1, "adversary": 0.2, "network.head.bias": 0.3}
    found = names(network, parameter_groups(network, rates))
    everything = {name for name, p in network.named_parameters() if p.requires_grad}
    assert found[0.1] == {name for name in everything if name.startswith("random_slopes.")}
    assert found[0.2] == {name for name in everything if name.startswith("adversary.")}
    assert found[0.3] == {"network.head.bias"}
    assert found[None] == everything - found[0.1] - found[0.2] - found[0.3]


def test_equal_rates_share_a_group_and_the_adversary_may_be_left_out():
    network = ARMED(DFNN(3), {"site": 4, "subject": 9}, (3,))
    groups = parameter_groups(network, {"random_effects": 0.1, "adversary": 0.1}, adversary=False)
    found = names(network, groups)
    assert set(found) == {None, 0.1} and not any(name.startswith("adversary.") for name in found[None] | found[0.1])
    assert {name.split(".")[1] for name in found[0.1]} == {"site", "subject"}
    torch.optim.Adam(groups, lr=1.0)


@pytest.mark.parametrize("network", [DFNN(3), ClusterInput(DFNN(3), 4, "hidden.0.0")])
def test_other_networks_have_one_group(network):
    (group,) = parameter_groups(network, {"random_effects": 0.1, "adversary": 0.2})
    assert "lr" not in group and len(group["params"]) == len(list(network.parameters()))


def test_frozen_weights_are_left_out():
    small = {"channels": (4, 4, 4), "latent_channels": 8, "classifier_channels": 4}
    random = AEC((1, 16, 16), norm=("recon", {"num_clusters": 3}), **small)
    classifier = CNN((1, 16, 16), 3, (4, 4), 4)
    network = ARMEDAEC(
        AEC((1, 16, 16), **small),
        3,
        (1, 16, 16),
        random,
        adversary=None,
        freeze_fixed=True,
        image_classifier=classifier,
    )
    found = names(network, parameter_groups(network, {"random_effects": 0.1}))
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert found[0.1] == {name for name in trained if ".effects." in name} and found[None] == trained - found[0.1]


def test_optimizer_of_the_adversary():
    network = ARMED(DFNN(3), 4, (3,))
    optimizer = adversary_optimizer(network, torch.optim.NAdam, lr=0.5)
    assert isinstance(optimizer, torch.optim.NAdam) and optimizer.param_groups[0]["lr"] == 0.5
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in network.adversary.parameters()}
    assert adversary_optimizer(ARMED(DFNN(3), 4, (3,), adversary=None)) is None and adversary_optimizer(DFNN(3)) is None


@pytest.mark.parametrize("second", [None, 7])
def test_learning_rate_of_two_stages(second):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = staged_cosine(optimizer, 10, 5, warm_up_epochs=1, second_stage=second)
    rates = []
    for _ in range(10 * 5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    tops = [k for k, rate in enumerate(rates) if rate == pytest.approx(2.0)]
    assert tops == ([5] if second is None else [5, 30])  # a stage of four epochs is too short for a warm-up
    assert rates[0] < 0.1 and rates[-1] < 0.1 and max(rates) == pytest.approx(2.0)
