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

"""Alternating updates in two processes, whose gradients are averaged."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from monai.utils import set_determinism
from torch.nn.parallel import DistributedDataParallel

from monai_armed.engines import ARMEDTrainer, PrepareBatchCluster
from monai_armed.losses import ARMEDLoss
from monai_armed.networks import ARMED, DFNN

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="PyTorch was built without gloo")

LEARNING_RATE, STEPS = 0.1, 3


def _train(batches: list[dict[str, torch.Tensor]], wrap: dict | None, confusion: bool) -> ARMED:
    set_determinism(0)
    effects = {"posterior_scale": 1e-12}  # so that draws do not differ between processes
    net = ARMED(DFNN(3), 4, (3,), adversary="dense", confusion=confusion, random_effects=effects)
    adversary = list(net.adversary.parameters())
    rest = [p for n, p in net.named_parameters() if not n.startswith("adversary.")]
    trainer = ARMEDTrainer(
        "cpu",
        STEPS,
        batches,
        net if wrap is None else DistributedDataParallel(net, **wrap),
        torch.optim.SGD(rest, LEARNING_RATE),
        ARMEDLoss(torch.nn.BCEWithLogitsLoss()),
        prepare_batch=PrepareBatchCluster(),
        adversary=net.adversary,
        adversary_optimizer=torch.optim.SGD(adversary, LEARNING_RATE),
        decollate=False,
    )
    trainer.run()
    return net


def _batch() -> dict[str, torch.Tensor]:
    x = torch.randn(16, 3, generator=torch.Generator().manual_seed(1))
    return {"image": x, "label": torch.arange(16) % 2, "cluster": torch.arange(16) % 4}


@pytest.mark.parametrize(
    ("find_unused", "confusion"), [(False, False), pytest.param(True, True, marks=pytest.mark.slow)]
)
def test_two_processes_learn_what_one_does(tmp_path, find_unused, confusion):
    options = [str(tmp_path), str(int(find_unused)), str(int(confusion))]
    processes = [subprocess.Popen([sys.executable, __file__, str(rank), *options]) for rank in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    whole = _train([_batch()], None, confusion).state_dict()
    for name, value in whole.items():
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-6)


def _half(rank: int, folder: str, find_unused: bool, confusion: bool) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    half = {name: value[8 * rank :][:8] for name, value in _batch().items()}
    net = _train([half], {"find_unused_parameters": find_unused}, confusion)
    torch.save(net.state_dict(), f"{folder}/{rank}.pt")
    torch.distributed.barrier()
    os._exit(0)  # gloo's threads have waited for those of a process that was gone already, in destroy_process_group


if __name__ == "__main__":
    _half(int(sys.argv[1]), sys.argv[2], *(bool(int(word)) for word in sys.argv[3:]))
