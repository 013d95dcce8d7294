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

"""Key metrics of validation: MONAI's and Ignite's, which know where our evaluators' output has what they take."""

from __future__ import annotations

from collections.abc import Callable

from ignite.metrics import Loss
from monai.handlers import ROCAUC, MeanSquaredError

__all__ = ["ImageError", "LabelAUROC", "TargetLoss"]


class LabelAUROC(ROCAUC):
    """AUROC of the logits against the label: MONAI's ``ROCAUC``, for evaluators with ``decollate=False``."""

    def __init__(self) -> None:
        super().__init__(output_transform=lambda output: (output["pred"], output["label"]["label"].reshape(-1, 1)))


class ImageError(MeanSquaredError):
    """Mean squared error of a reconstruction: MONAI's ``MeanSquaredError``, for evaluators with ``decollate=False``."""

    def __init__(self) -> None:
        super().__init__(output_transform=lambda output: (output["pred"], output["label"]["image"]))


class TargetLoss(Loss):
    """
    Mean of a loss that takes all targets: Ignite's ``Loss``, for evaluators with ``decollate=False``.

    Args:
        loss_fn: called with the prediction and the targets, such as an :py:class:`monai_armed.losses.ARMEDLoss`.
    """

    def __init__(self, loss_fn: Callable) -> None:
        super().__init__(
            loss_fn,
            output_transform=lambda output: (output["pred"], output["label"]),
            batch_size=lambda target: len(target["label"]),
        )
