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

import torch.nn as nn

__all__ = ["xavier_init"]


def xavier_init(network: nn.Module) -> nn.Module:
    """
    Give every linear layer Xavier's uniform weights (of Glorot and Bengio) and a bias of zero. Networks of a few
    units, which often die from PyTorch's own start, train far more reliably from this one.

    Args:
        network: any module; changed in place.

    Returns:
        the network.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network
