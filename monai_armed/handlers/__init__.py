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

from ..engines.adversary_monitor import AdversaryMonitor
from .cluster_audit import ClusterAudit
from .cluster_erasure import ClusterErasure, erase_clusters
from .cluster_light_fit import ClusterLightFit
from .early_stop import EarlyStop
from .epoch_seed import EpochSeed
from .prediction_writer import PredictionWriter
from .random_effects_writer import RandomEffectsWriter
from .training_checkpoint import TrainingCheckpoint, load_weights
from .training_log import LossProgress, TrainingLog, ValidationLog, loss_terms
from .validation_metrics import ImageError, LabelAUROC, TargetLoss
from .warm_up import LinearWarmUp, ReversalWarmUp

__all__ = [
    "AdversaryMonitor",
    "ClusterAudit",
    "ClusterErasure",
    "ClusterLightFit",
    "EarlyStop",
    "EpochSeed",
    "ImageError",
    "LabelAUROC",
    "LinearWarmUp",
    "LossProgress",
    "PredictionWriter",
    "RandomEffectsWriter",
    "ReversalWarmUp",
    "TargetLoss",
    "TrainingCheckpoint",
    "TrainingLog",
    "ValidationLog",
    "erase_clusters",
    "load_weights",
    "loss_terms",
]
