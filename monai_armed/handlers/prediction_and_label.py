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

from collections.abc import Mapping

import torch

__all__ = ["prediction_and_label", "prediction_and_target"]


def prediction_and_label(output: Mapping) -> tuple[torch.Tensor, torch.Tensor]:
    """
    What MONAI's metrics of a classification take of an evaluator's output; their ``output_transform``.

    Args:
        output: ``engine.state.output`` of a ``SupervisedEvaluator`` with ``decollate=False``, whose targets hold
            ``"label"`` (B,) or (B, 1).

    Returns:
        logits (B, 1) and labels (B, 1).
    """
    return output["pred"], output["label"]["label"].reshape(-1, 1)


def prediction_and_target(output: Mapping) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
    """As :py:func:`prediction_and_label`, for a loss that takes all targets."""
    return output["pred"], output["label"]
