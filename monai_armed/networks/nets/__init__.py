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

from .adversary import Adversary
from .adversary_classifiers import ConvAdversary, DenseAdversary, PooledAdversary, WhitenedAdversary
from .aec import AEC
from .armed import ARMED
from .armed_aec import ARMEDAEC
from .cluster_input import ClusterInput
from .cluster_network import ClusterNetwork
from .cluster_resolution import ClusterResolution
from .cnn import CNN
from .dfnn import DFNN
from .z_predictor import ZPredictor

__all__ = [
    "AEC",
    "ARMED",
    "ARMEDAEC",
    "Adversary",
    "CNN",
    "ClusterInput",
    "ClusterNetwork",
    "ClusterResolution",
    "ConvAdversary",
    "DFNN",
    "DenseAdversary",
    "PooledAdversary",
    "WhitenedAdversary",
    "ZPredictor",
]
