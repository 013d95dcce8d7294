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

from monai_armed.networks.layers import reverse_gradient


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_identity_forward_negated_backward(strength):
    x = torch.randn(4, 3, requires_grad=True)
    y = reverse_gradient(x, strength)
    assert torch.equal(y, x)
    y.pow(2).sum().backward()
    torch.testing.assert_close(x.grad, -strength * 2 * x.detach())


def test_scripts():
    @torch.jit.script
    def twice(x: torch.Tensor) -> torch.Tensor:
        return x.detach() + 0.5 * (x.detach() - x)

    x = torch.randn(3)
    torch.testing.assert_close(twice(x), reverse_gradient(x, 0.5))
