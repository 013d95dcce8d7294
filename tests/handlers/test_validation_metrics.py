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
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from sklearn.metrics import roc_auc_score

from monai_armed.engines import PrepareBatchCluster
from monai_armed.handlers import ImageError, LabelAUROC, TargetLoss
from monai_armed.losses import ARMEDLoss
from monai_armed.networks import ARMED, DFNN


def measured(network: torch.nn.Module, metric) -> float:
    x = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    data = [{"image": x[i], "label": torch.tensor([i % 2.0]), "cluster": i % 4} for i in range(10)]
    loader = DataLoader(Dataset(data), batch_size=4)  # the last batch is smaller
    evaluator = SupervisedEvaluator(
        "cpu", loader, network, prepare_batch=PrepareBatchCluster(), key_val_metric={"m": metric}, decollate=False
    )
    evaluator.run()
    return evaluator.state.metrics["m"]


def test_they_are_the_metrics_of_all_samples():
    torch.manual_seed(0)
    network, loss = ARMED(DFNN(3), 4, (3,)).eval(), ARMEDLoss(torch.nn.BCEWithLogitsLoss())
    torch.nn.init.normal_(network.random_effects.loc)
    x = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    label, cluster = torch.arange(10) % 2, torch.arange(10) % 4
    logits = network(x, cluster).detach()
    assert measured(network, LabelAUROC()) == pytest.approx(roc_auc_score(label, logits[:, 0]))
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], label.float())
    assert measured(network, TargetLoss(loss)) == pytest.approx(float(wanted), rel=1e-5)


def test_error_of_an_image():
    class Half(torch.nn.Module):
        def forward(self, x, cluster=None):
            return x / 2

    x = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    assert measured(Half(), ImageError()) == pytest.approx(float((x / 2).square().mean()), rel=1e-5)
