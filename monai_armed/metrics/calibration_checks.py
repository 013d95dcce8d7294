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

"""What predictions and labels must be to be calibrated."""

from __future__ import annotations

import torch

__all__ = ["check_classes", "like_log_counts", "one_column"]


def one_column(label: torch.Tensor) -> torch.Tensor:
    """
    Labels (N,) of those that are (N,) or (N, 1).

    Raises:
        ValueError: when there are several columns.
    """
    if len(label) and label[0].numel() != 1:
        raise ValueError(
            f"labels must be one class or number a sample, (N,) or (N, 1), got {tuple(label.shape)}: calibrate each "
            "column by itself, as Calibration(prediction[:, [k]], label[:, k], clusters); of one-hot classes give "
            "label.argmax(1)."
        )
    return label.reshape(-1)


def check_classes(prediction: torch.Tensor, label: torch.Tensor, classification: bool) -> None:
    """
    Raises:
        ValueError: when a class is none of those that predictions (N, K) are of, or numbers have several predictions.
    """
    most = max(2, prediction.shape[1]) - 1
    if classification and not bool(((label == label.round()) & (label >= 0) & (label <= most)).all()):
        raise ValueError(f"classes must be whole numbers from 0 to {most}, got {label.unique().tolist()[:5]}, ...")
    if not classification and prediction.shape[1] > 1:
        raise ValueError(
            f"there are {most + 1} predictions of each sample, but its label is no class: calibrate the one that is of "
            "the label, prediction[:, [k]]."
        )


def like_log_counts(prediction: torch.Tensor, label: torch.Tensor) -> bool:
    """Whether labels may be counts whose mean's logarithm was predicted."""
    counts = bool((label >= 0).all()) and bool((label == label.round()).all())
    return counts and bool((prediction < 0).any())
