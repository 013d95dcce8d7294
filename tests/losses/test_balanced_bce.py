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

import pytest
import torch

from monai_armed.losses import ClusterCrossEntropyLoss, ZPredictorLoss, balanced_bce


def test_both_classes_count_alike():
    label = torch.tensor([0.0, 0, 0, 1])
    loss = balanced_bce([{"label": int(value)} for value in label])
    logits = torch.zeros(4, requires_grad=True)
    loss(logits, label).backward()
    assert float(logits.grad.sum()) == pytest.approx(0)  # no side pulls more than the other
    with pytest.raises(ValueError, match="none of 2 training samples has the label 1"):
        balanced_bce([{"label": 0}] * 2)


def test_loss_of_a_z_predictor():
    logits, cluster = torch.randn(6, 3), torch.tensor([0, 1, 2, -1, 0, -1])
    target = {"label": torch.zeros(6), "cluster": cluster}
    known = cluster >= 0
    wanted = torch.nn.functional.cross_entropy(logits[known], cluster[known])
    torch.testing.assert_close(ZPredictorLoss()(logits, target), wanted)
    torch.testing.assert_close(ZPredictorLoss(ClusterCrossEntropyLoss())(logits, target), wanted)
