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

from collections.abc import Callable, Mapping

import torch
from torch.nn.modules.loss import _Loss

__all__ = ["ZPredictorLoss"]


class ZPredictorLoss(_Loss):
    """
    Loss of a Z-predictor in MONAI's trainers, whose targets hold the label beside the cluster.

    Args:
        loss: called with cluster logits and the cluster; by default the cross-entropy, in which samples of no known
            cluster do not count.
    """

    def __init__(self, loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None) -> None:
        super().__init__()
        self.loss = torch.nn.CrossEntropyLoss(ignore_index=-1) if loss is None else loss

    def forward(self, logits: torch.Tensor, target: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """
        Args:
            logits: cluster logits (B, C).
            target: ``"cluster"``, index (B,), -1 where not known.
        """
        return self.loss(logits, target["cluster"])
