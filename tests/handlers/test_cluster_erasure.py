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

"""The handler that erases what tells the clusters in an epoch of the training."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from ignite.engine import Engine

from monai_armed.handlers import (
    ClusterErasure,
    cluster_erasure,
)
from monai_armed.networks.nets import AEC, ARMEDAEC

EPOCHS = 5


class Erasable(torch.nn.Module):
    """Stands for a network: writes down what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def freeze_encoder(self) -> None:
        self.calls.append("freeze")


@pytest.fixture
def written_down(monkeypatch) -> None:
    """That erasing is asked for, without doing it."""
    write = lambda network, batches: network.calls.append(f"erase {list(batches)}")  # noqa: E731
    monkeypatch.setattr(cluster_erasure, "erase_clusters", write)


@pytest.mark.parametrize(
    ("epoch", "done", "erased", "calls"),
    [
        (3, 0, False, ["erase [7]"]),
        (3, 2, False, ["erase [7]"]),
        (3, 3, True, ["freeze"]),
        (5, 3, True, ["freeze"]),  # not again when the epochs are others on resuming
        (None, 3, True, ["freeze"]),
        (None, 0, False, []),
    ],
)
def test_erasure_at_one_epoch_and_not_again_when_training_goes_on(written_down, epoch, done, erased, calls):
    network, trainer = Erasable(), Engine(lambda engine, batch: None)
    handler = ClusterErasure(network, [7], epoch)
    handler.load_state_dict({"erased": erased})
    handler.attach(trainer)
    trainer.state.max_epochs = None
    if done:
        trainer.load_state_dict({"epoch": done, "max_epochs": 5, "epoch_length": 2})
    trainer.run([1, 2], max_epochs=5)
    assert network.calls == calls and handler.state_dict() == {"erased": bool(calls)}


def test_erasure_that_cannot_come_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        ClusterErasure(Erasable(), [7], 0)
    with pytest.raises(ValueError, match=r"is for ARMEDAEC, got Linear: .* fit_erasers"):
        ClusterErasure(torch.nn.Linear(2, 2), [7], 2)
    ClusterErasure(torch.nn.Linear(2, 2), [7], None)  # a model that is compared
    trainer = Engine(lambda engine, batch: None)
    ClusterErasure(Erasable(), [7], 4).attach(trainer)
    with pytest.raises(ValueError, match="erased in epoch 4, training ends after 3"):
        trainer.run([1], max_epochs=3)
    trainer = Engine(lambda engine, batch: None)
    ClusterErasure(Erasable(), [7], 2).attach(trainer)
    trainer.load_state_dict({"epoch": 3, "max_epochs": 5, "epoch_length": 1})
    with pytest.raises(ValueError, match="goes on after epoch 3, but its clusters were not erased in epoch 2"):
        trainer.run([1])


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="PyTorch was built without gloo")
def test_two_processes_erase_the_same(tmp_path):
    """The running statistics of a process are its own until the next forward pass."""
    commands = [[sys.executable, __file__, str(rank), str(tmp_path / "store"), str(tmp_path)] for rank in range(2)]
    processes = [subprocess.Popen(command) for command in commands]
    assert [process.wait() for process in processes] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def _erase(rank: int, store: str, folder: str) -> None:
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    torch.manual_seed(0)
    sizes = {"channels": (4, 4, 4), "latent_channels": 8, "classifier_channels": 4}
    network = ARMEDAEC(AEC((1, 16, 16), **sizes), 3, (1, 16, 16), adversary=None)
    batch = {"image": torch.rand(30, 1, 16, 16), "cluster": torch.arange(30) % 3}
    for name, buffer in network.named_buffers():
        if name.endswith("running_var"):
            buffer += rank
    trainer = Engine(lambda engine, batch: None)
    ClusterErasure(network, [batch], 1).attach(trainer)
    trainer.run([0], max_epochs=1)
    torch.save(network.state_dict(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    _erase(int(sys.argv[1]), *sys.argv[2:])
