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

import torch

__all__ = ["loss_terms"]


def loss_terms(output: Mapping[str, torch.Tensor] | Sequence[Mapping[str, torch.Tensor]]) -> dict[str, float]:
    """
    The loss and its terms in a trainer's output, as numbers; the ``output_transform`` of MONAI's ``StatsHandler`` and
    ``TensorBoardStatsHandler``.

    Args:
        output: ``engine.state.output`` of :py:class:`monai_armed.engines.ARMEDTrainer` or ``SupervisedTrainer``.
    """
    if isinstance(output, Sequence):  # decollated
        output = output[0]
    return {
        name: float(output[name].detach())
        for name in ("loss", "mixed", "fixed", "adversary", "confusion", "kl")
        if name in output
    }
