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

"""Cost of a training step of ARMED over the conventional network, on the paper's CNN; all measured in one run, in turn.

Run ``python benchmarks/step_cost.py``. A round takes one step of each training; the ratios are to the conventional step
of the same round, so that whatever else the machine does falls on all of them alike.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer

from monai_armed.engines import ARMEDTrainer, PrepareBatchCluster
from monai_armed.losses import ARMEDLoss
from monai_armed.networks import ARMED, CNN
from monai_armed.networks.nets import ConvAdversary

NUM_CLUSTERS = 12
PAPER_ADVERSARY = (64, 64, 128, 128, 256, 256, 512)

Step = Callable[[], object]


def armed(size: int, adversary: str | tuple | None, random_effects: bool = True, **options) -> ARMED:
    """The paper's CNN as an ARMED network, or a domain adversarial one."""
    effects = {"nonlinear_slopes": random_effects, "intercept": random_effects}
    return ARMED(CNN((1, size, size)), NUM_CLUSTERS, (1, size, size), adversary=adversary, **effects, **options)


def paper_adversary(size: int) -> ARMED:
    """ARMED with the paper's convolutional adversary."""
    blocks = [f"blocks.{i}" for i in range(len(PAPER_ADVERSARY))]
    return armed(size, partial(ConvAdversary, channels=PAPER_ADVERSARY), feature_layers=blocks)


def step_of(
    network: torch.nn.Module,
    batch: dict[str, torch.Tensor],
    alternating: bool = False,
    make_optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.NAdam,
) -> Step:
    """One training step through the engine that users run."""
    loss = ARMEDLoss(torch.nn.BCEWithLogitsLoss())
    settings = {
        "device": "cpu",
        "max_epochs": 1,
        "train_data_loader": DataLoader(Dataset([0]), batch_size=1),
        "network": network,
        "loss_function": loss,
        "prepare_batch": PrepareBatchCluster(pass_cluster=isinstance(network, ARMED)),
        "decollate": False,
    }
    trainer: SupervisedTrainer
    if alternating:
        assert isinstance(network, ARMED) and network.adversary is not None
        adversary = list(network.adversary.parameters())
        held = {id(p) for p in adversary}
        rest = [p for p in network.parameters() if id(p) not in held]
        trainer = ARMEDTrainer(
            optimizer=make_optimizer(rest, 1e-4),
            adversary=network.adversary,
            adversary_optimizer=make_optimizer(adversary, 1e-4),
            **settings,
        )
    else:
        trainer = SupervisedTrainer(optimizer=make_optimizer(network.parameters(), 1e-4), **settings)
    return lambda: trainer._iteration(trainer, batch)


def measure(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Seconds of each step in each round; the first step of each, which sets up, is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            start = time.process_time()
            step()
            if number:
                seconds[name].append(time.process_time() - start)
    return seconds


def report(seconds: dict[str, list[float]], digits: int = 0) -> None:
    """Print the median CPU time of each step and its ratio to the first of the same round."""
    first = next(iter(seconds))
    print(f"{'training step':44} {'CPU ms':>8}   ratio: median (smallest to largest)")
    for name, values in seconds.items():
        ratios = [value / base for value, base in zip(values, seconds[first])]
        spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
        print(
            f"{name:44} {1000 * statistics.median(values):8.{digits}f}   {statistics.median(ratios):.2f} {spread}",
            flush=True,
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--size", type=int, default=192, help="height and width of the images")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    size, count = arguments.size, arguments.batch_size
    batch = {
        "image": torch.rand(count, 1, size, size),
        "label": torch.randint(2, (count,)),
        "cluster": torch.randint(NUM_CLUSTERS, (count,)),
    }
    steps = {
        "conventional": step_of(CNN((1, size, size)), batch),
        "without adversary (random effects alone)": step_of(armed(size, None), batch),
        "domain adversarial, pooled, one pass": step_of(armed(size, "pooled", random_effects=False), batch),
        "ARMED, pooled, one pass": step_of(armed(size, "pooled"), batch),
        "ARMED, pooled, alternating": step_of(armed(size, "pooled"), batch, alternating=True),
        "ARMED, the paper's adversary, one pass": step_of(paper_adversary(size), batch),
        "ARMED, the paper's adversary, alternating": step_of(paper_adversary(size), batch, alternating=True),
        "ARMED, adversary='conv', one pass": step_of(armed(size, "conv"), batch),
    }
    print(f"CNN of the paper, {size} x {size}, batch {count}, {arguments.rounds} rounds, {arguments.threads} thread(s)")
    report(measure(steps, arguments.rounds))


if __name__ == "__main__":
    main()
