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

"""The least time that a training step can take: its arithmetic, or the bytes that it has to move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

# Dense peaks in FLOP/s (bf16, and TF32, in which cuDNN convolves float32) and bytes/s, as NVIDIA's data sheets give
# them; the first name that is part of the device's counts.
PEAKS = {
    "H200": (989e12, 494e12, 4.8e12),
    "H100 PCIe": (756e12, 378e12, 2.0e12),
    "H100": (989e12, 494e12, 3.35e12),
    "A100": (312e12, 156e12, 2.0e12),
    "L40S": (362e12, 183e12, 0.864e12),
}
FLOP_SHARE, BANDWIDTH_SHARE = 0.6, 0.8  # of the peaks, that good kernels reach
PARAMETER_MOVES = 10  # read in both passes; its gradient written and read; it and two moments read and written


def work_of(step: Callable[[], object], network: torch.nn.Module) -> dict[str, float]:
    """
    What a step has to do.

    Args:
        step: one training step.
        network: its network.

    Returns:
        ``flops`` of both passes (multiplications and additions of convolutions and matrix products), and ``bytes``:
        what is kept for the backward pass written once and read once, and each parameter moved ten times.
    """
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    counter = FlopCounterMode(display=False)
    with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    parameters = sum(parameter.nbytes for parameter in network.parameters())
    return {
        "flops": float(counter.get_total_flops()),
        "bytes": float(2 * sum(kept.values()) + PARAMETER_MOVES * parameters),
    }


def floor_of(step: Callable[[], object], network: torch.nn.Module, device: torch.device, amp: bool) -> dict[str, Any]:
    """The work of a step, and ``floor_ms``, its least time, on a device whose peaks are known."""
    work: dict[str, Any] = work_of(step, network)
    if device.type == "cuda" and torch.cuda.is_available():
        name = torch.cuda.get_device_name(device)
        for known, (half, single, bandwidth) in PEAKS.items():
            if known in name:
                arithmetic = work["flops"] / (FLOP_SHARE * (half if amp else single))
                work["floor_ms"] = 1000 * max(arithmetic, work["bytes"] / (BANDWIDTH_SHARE * bandwidth))
                break
    return work
