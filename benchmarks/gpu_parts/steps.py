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

"""Time of a training step: conventional and ARMED, on the paper's CNN and a 3-D DenseNet121, in several precisions."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.networks.nets import DenseNet121

from monai_armed.engines import ARMEDTrainer, PrepareBatchCluster
from monai_armed.losses import ARMEDLoss
from monai_armed.networks import ARMED, CNN

from .floor import floor_of

NUM_CLUSTERS = 12
KINDS = ("conventional", "one pass", "alternating")  # "erased" joins them once the wrapper has an erasure
Step = Callable[[], object]


@dataclass(frozen=True)
class Workload:
    """A network and the size of a batch for it."""

    name: str
    make: Callable[[tuple[int, ...]], torch.nn.Module]
    shape: tuple[int, ...]
    batch_size: int


@dataclass(frozen=True)
class Option:
    """How a step is computed."""

    name: str
    amp: bool = False
    channels_last: bool = False
    compile: bool = False


def _densenet(shape: tuple[int, ...]) -> torch.nn.Module:
    return DenseNet121(spatial_dims=len(shape) - 1, in_channels=1, out_channels=1)


def workloads(small: bool) -> list[Workload]:
    """The networks, or the same on smaller images."""
    if small:
        return [
            Workload("paper's CNN, 128 x 128", CNN, (1, 128, 128), 2),
            Workload("DenseNet121, 32 x 32 x 32", _densenet, (1, 32, 32, 32), 2),
        ]
    return [
        Workload("paper's CNN, 192 x 192", CNN, (1, 192, 192), 32),
        Workload("DenseNet121, 96 x 96 x 96", _densenet, (1, 96, 96, 96), 8),
    ]


def options(small: bool) -> list[Option]:
    """Precisions and memory formats; without a GPU only what a CPU does, too."""
    if small:
        return [Option("float32"), Option("float32, channels_last", channels_last=True)]
    return [
        Option("float32"),
        Option("bf16", amp=True),
        Option("bf16, channels_last", amp=True, channels_last=True),
        Option("bf16, channels_last, compile", amp=True, channels_last=True, compile=True),
    ]


def trainer_of(kind: str, network: torch.nn.Module, device: torch.device, option: Option) -> SupervisedTrainer:
    """The engine of a kind of training: the only place that knows how the engines are called."""
    settings: dict[str, Any] = {
        "device": device,
        "max_epochs": 1,
        "train_data_loader": DataLoader(Dataset([0]), batch_size=1),
        "network": network,
        "loss_function": ARMEDLoss(torch.nn.BCEWithLogitsLoss()),
        "prepare_batch": PrepareBatchCluster(pass_cluster=kind != "conventional"),
        "decollate": False,
        "amp": option.amp,
        "amp_kwargs": {"dtype": torch.bfloat16} if option.amp else None,
    }
    if kind == "alternating":
        adversary = list(network.adversary.parameters())
        held = {id(parameter) for parameter in adversary}
        rest = [parameter for parameter in network.parameters() if id(parameter) not in held]
        second = torch.optim.NAdam(adversary, 1e-4)
        settings["adversary"] = network.adversary
        return ARMEDTrainer(optimizer=torch.optim.NAdam(rest, 1e-4), adversary_optimizer=second, **settings)
    optimizer = torch.optim.NAdam(network.parameters(), 1e-4)
    return SupervisedTrainer(optimizer=optimizer, compile=option.compile, **settings)


def network_of(kind: str, workload: Workload) -> torch.nn.Module:
    """The network of a kind of training, on the CPU."""
    torch.manual_seed(0)
    base = workload.make(workload.shape)
    return base if kind == "conventional" else ARMED(base, NUM_CLUSTERS, workload.shape, adversary="pooled")


def step_of(kind: str, workload: Workload, option: Option, device: torch.device) -> tuple[Step, torch.nn.Module]:
    """One training step through the engine that users run, on a batch that is on the device; and the network."""
    network = network_of(kind, workload).to(device)
    image = torch.rand(workload.batch_size, *workload.shape).to(device)
    if option.channels_last:
        layout = torch.channels_last if len(workload.shape) == 3 else torch.channels_last_3d
        network, image = network.to(memory_format=layout), image.contiguous(memory_format=layout)
    label, cluster = torch.randint(2, (workload.batch_size,)), torch.randint(NUM_CLUSTERS, (workload.batch_size,))
    batch = {"image": image, "label": label.to(device), "cluster": cluster.to(device)}
    trainer = trainer_of(kind, network, device, option)
    return (lambda: trainer._iteration(trainer, batch)), network


def synchronize(device: torch.device) -> None:
    """Wait until the device has done its work."""
    if device.type == "cuda" and torch.cuda.is_available():
        torch.cuda.synchronize(device)


def seconds_of(step: Step, device: torch.device, warm_up: int, repeats: int) -> float:
    """Median time of a step, after some that set things up."""
    times = []
    for _ in range(warm_up + repeats):
        synchronize(device)
        start = time.perf_counter()
        step()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[warm_up:])


def rows(small: bool, device: torch.device, left: Callable[[], float]) -> Iterator[dict[str, Any]]:
    """
    A row for each network, option and kind of training.

    Args:
        small: whether small, for a test.
        device: where.
        left: seconds that are left; what would begin below 30 (compiled: 90) is left out.
    """
    for workload in workloads(small):
        for option in options(small):
            base: float | None = None
            for kind in KINDS:
                row: dict[str, Any] = {"network": workload.name, "option": option.name, "training": kind}
                if option.compile and kind == "alternating":
                    continue  # ARMEDTrainer refuses to compile
                if left() < (90 if option.compile else 30):
                    yield {**row, "note": "left out: the time was up"}
                    continue
                try:
                    row |= _measured(kind, workload, option, device, small)
                except Exception as error:  # what a device or a compiler cannot do belongs in the table
                    row["note"] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                else:
                    base = row["ms"] if kind == "conventional" else base
                    row["ratio"] = row["ms"] / base if base else None
                yield row


def _measured(kind: str, workload: Workload, option: Option, device: torch.device, small: bool) -> dict[str, Any]:
    step, network = step_of(kind, workload, option, device)
    seconds = seconds_of(step, device, *((1, 2) if small else (5, 20)))
    measured: dict[str, Any] = {"ms": 1000 * seconds, "images_per_s": workload.batch_size / seconds}
    if not option.compile:  # a compiled step has the same least work; counting would compile it once more
        floor = floor_of(step, network, device, option.amp)
        measured |= floor
        if floor.get("floor_ms"):
            measured["times_floor"] = measured["ms"] / floor["floor_ms"]
    return measured


def nondeterministic(device: torch.device, small: bool) -> dict[str, list[str]]:
    """What PyTorch warns of in one step of each network and training when deterministic algorithms are asked for."""
    found: dict[str, list[str]] = {}
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        for workload in workloads(small):
            for kind in KINDS:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    step_of(kind, workload, options(small)[0], device)[0]()
                told = {str(w.message).splitlines()[0][:160] for w in caught if "determinis" in str(w.message)}
                found[f"{workload.name}, {kind}"] = sorted(told)
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
    return found
