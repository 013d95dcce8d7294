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

from collections.abc import Mapping, Sequence
from typing import Any

import torch

__all__ = ["FeatureMemory"]


class FeatureMemory:
    """
    Features of the last samples that a network was trained on, for its adversary to learn from
    (:py:class:`monai_armed.engines.ARMEDTrainer`). Several steps on the features of one small batch teach an adversary
    these samples by heart; what it then holds against the network is what is special in each of them, and the network
    drops that. An adversary that learns from earlier samples is judged, as a fresh classifier would be, on samples
    that it has not seen.

    Args:
        size: number of samples that are kept. The network moves on: features of long ago are not its features.
        batch_size: number of samples for a step of the adversary.

    Raises:
        ValueError: when a number is not positive.
    """

    def __init__(self, size: int, batch_size: int) -> None:
        if size < 1 or batch_size < 1:
            raise ValueError(f"size and batch_size must be positive, got {size} and {batch_size}.")
        self.size, self.batch_size = size, batch_size
        self.features: list[torch.Tensor] = []
        self.targets: dict[str, torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self.features[0]) if self.features else 0

    def add(self, features: Sequence[torch.Tensor], targets: Mapping[str, torch.Tensor]) -> None:
        """
        Args:
            features: what the adversary sees of a batch, tensors (B, ...).
            targets: what its loss needs, tensors (B, ...) by name.
        """

        def joined(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
            return torch.cat([old.to(new.device), new])[-self.size :]  # those of a checkpoint are on the CPU

        kept = [f.detach() for f in features]
        if len(self):
            kept = [joined(old, new) for old, new in zip(self.features, kept)]
            targets = {name: joined(self.targets[name], t) for name, t in targets.items()}
        self.features, self.targets = kept, dict(targets)

    def draw(self, device: str | torch.device | None = None) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
        """``batch_size`` samples at random, with replacement: what was added of them, on a device."""
        index = torch.randint(len(self), (self.batch_size,))

        def drawn(tensor: torch.Tensor) -> torch.Tensor:
            return tensor[index.to(tensor.device)].to(device)

        return [drawn(f) for f in self.features], {name: drawn(t) for name, t in self.targets.items()}

    def state_dict(self) -> dict[str, Any]:
        """All samples, for a checkpoint."""
        return {"features": list(self.features), "targets": dict(self.targets)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The samples of a checkpoint."""
        self.features, self.targets = list(state["features"]), dict(state["targets"])
