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
from monai.utils import set_determinism

from monai_armed.engines import ARMEDTrainer, FeatureMemory, PrepareBatchCluster
from monai_armed.losses import ARMEDLoss
from monai_armed.networks import ARMED, DFNN

SAMPLES, FEATURES, CLUSTERS = 64, 16, 4


def test_the_last_samples_are_kept_and_drawn_whole():
    memory = FeatureMemory(size=5, batch_size=50)
    for start in (0, 3, 6):
        index = torch.arange(start, start + 3)
        memory.add([index[:, None].float(), 10.0 * index[:, None, None]], {"cluster": index})
    assert len(memory) == 5
    (small, large), targets = memory.draw()
    assert set(targets["cluster"].tolist()) == {4, 5, 6, 7, 8}
    assert small.shape == (50, 1) and large.shape == (50, 1, 1)
    torch.testing.assert_close(small[:, 0], targets["cluster"].float())
    torch.testing.assert_close(large[:, 0, 0], 10.0 * targets["cluster"])


def test_features_are_kept_without_their_graph():
    memory = FeatureMemory(4, 2)
    memory.add([torch.ones(3, 2, requires_grad=True) * 2], {"cluster": torch.arange(3)})
    assert not memory.features[0].requires_grad


def test_a_checkpoint_brings_the_samples_back(tmp_path):
    memory, again = FeatureMemory(4, 3), FeatureMemory(4, 3)
    memory.add([torch.rand(3, 2)], {"cluster": torch.arange(3), "label": torch.rand(3)})
    torch.save(memory.state_dict(), tmp_path / "memory.pt")
    again.load_state_dict(torch.load(tmp_path / "memory.pt", weights_only=True))
    torch.manual_seed(0)
    first = memory.draw()
    torch.manual_seed(0)
    torch.testing.assert_close(again.draw(), first)


@pytest.mark.parametrize("numbers", [(0, 4), (4, 0)])
def test_sizes_are_positive(numbers):
    with pytest.raises(ValueError, match="must be positive"):
        FeatureMemory(*numbers)


def _trainer(memory: FeatureMemory | None, steps: int) -> tuple[ARMED, ARMEDTrainer]:
    """A trainer whose network never moves: all that is learned is what the adversary learns. Clusters are noise."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES, FEATURES, generator=generator)
    data = [{"image": x[i], "label": i % 2, "cluster": i // 2 % CLUSTERS} for i in range(SAMPLES)]
    network = ARMED(DFNN(FEATURES, hidden_channels=(32,)), CLUSTERS, (FEATURES,), adversary="pooled")
    rest = [p for n, p in network.named_parameters() if not n.startswith("adversary.")]
    trainer = ARMEDTrainer(
        "cpu",
        1,
        DataLoader(Dataset(data), batch_size=16, shuffle=True),
        network,
        torch.optim.SGD(rest, 0.0),
        ARMEDLoss(torch.nn.BCEWithLogitsLoss()),
        prepare_batch=PrepareBatchCluster(),
        adversary=network.adversary,
        adversary_optimizer=torch.optim.Adam(network.adversary.parameters(), 0.01),
        adversary_steps=steps,
        adversary_memory=memory,
        decollate=False,
    )
    return network, trainer


def test_an_adversary_with_a_memory_does_not_know_the_batch_by_heart():
    """Clusters that no feature tells: only who has learned the samples of this very batch names them."""
    errors = {}
    for size in (0, 48):
        set_determinism(0)
        _, trainer = _trainer(FeatureMemory(size, 32) if size else None, steps=40)
        trainer.run()
        errors[size] = float(trainer.state.output["adversary"])
    chance = torch.log(torch.tensor(float(CLUSTERS)))
    assert errors[0] < 0.5 * chance and errors[48] > chance


def test_the_network_runs_once_an_iteration():
    network, trainer = _trainer(FeatureMemory(48, 32), steps=5)
    runs = []
    network.network.register_forward_hook(lambda *_: runs.append(1))
    trainer.run()
    assert len(runs) == SAMPLES / 16 and len(trainer.adversary_memory) == 48
