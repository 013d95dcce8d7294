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

__all__ = ["balanced_bce"]


def balanced_bce(
    datalist: Sequence[Mapping[str, Any]], device: str | torch.device = "cpu"
) -> torch.nn.BCEWithLogitsLoss:
    """
    Binary cross-entropy of logits in which both classes count alike, as the ``pos_weight`` of class 1 makes them.

    Args:
        datalist: the training samples, dicts whose ``"label"`` is 0 or 1.
        device: device of the loss.

    Raises:
        ValueError: when there is no sample of class 1.
    """
    positive = sum(item["label"] == 1 for item in datalist)
    if not positive:
        raise ValueError(f"none of {len(datalist)} training samples has the label 1: there is nothing to learn.")
    ratio = sum(item["label"] == 0 for item in datalist) / positive
    return torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(ratio).to(device))
