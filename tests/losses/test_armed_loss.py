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

from monai_armed.losses import ARMEDLoss


@pytest.mark.parametrize("spatial", [(), (4, 4)])
def test_cross_entropy_takes_classes_with_a_channel(spatial):
    """As MONAI's transforms give them, and as float."""
    torch.manual_seed(0)
    logits, label = torch.randn(5, 3, *spatial), torch.randint(3, (5, 1, *spatial))
    wanted = torch.nn.functional.cross_entropy(logits, label.squeeze(1))
    for given in (label, label.float(), label.squeeze(1)):
        torch.testing.assert_close(ARMEDLoss(torch.nn.CrossEntropyLoss()).error(logits, given), wanted)
