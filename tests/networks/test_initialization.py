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

import math

import torch

from monai_armed.networks import xavier_init
from monai_armed.networks.nets import DFNN


def test_weights_are_uniform_within_glorots_bound_and_biases_zero():
    torch.manual_seed(0)
    network = DFNN(40, hidden_channels=(60,))
    assert xavier_init(network) is network
    layer = network.hidden[0][0]
    bound = math.sqrt(6 / 100)
    assert layer.weight.abs().max() <= bound and layer.weight.std() > 0.95 * bound / math.sqrt(3)
    assert not layer.bias.any() and not network.head.bias.any()
