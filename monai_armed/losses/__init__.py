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

from .aec_loss import AECLoss
from .armed_loss import ARMEDLoss
from .balanced_bce import balanced_bce
from .cluster_losses import ClusterConfusionLoss, ClusterCrossEntropyLoss, ZPredictorLoss
from .coral_loss import CORALLoss
from .group_risks import GroupDROLoss, VRExLoss
from .likelihoods import (
    BinomialLikelihoodLoss,
    GaussianLikelihoodLoss,
    LikelihoodLoss,
    NegativeBinomialLikelihoodLoss,
    OrdinalLikelihoodLoss,
    PoissonLikelihoodLoss,
)

__all__ = [
    "AECLoss",
    "ARMEDLoss",
    "BinomialLikelihoodLoss",
    "CORALLoss",
    "ClusterConfusionLoss",
    "ClusterCrossEntropyLoss",
    "GaussianLikelihoodLoss",
    "GroupDROLoss",
    "LikelihoodLoss",
    "NegativeBinomialLikelihoodLoss",
    "OrdinalLikelihoodLoss",
    "PoissonLikelihoodLoss",
    "VRExLoss",
    "ZPredictorLoss",
    "balanced_bce",
]
