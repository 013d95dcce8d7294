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

import torch

__all__ = ["reverse_gradient"]


def reverse_gradient(x: torch.Tensor, strength: torch.Tensor | float = 1.0) -> torch.Tensor:
    """
    Identity in the forward pass; the gradient is multiplied by ``-strength`` in the backward pass.

    One backward pass then trains an adversary to find the cluster in ``x`` and the layers before ``x`` to hide it:
    the ``-lambda_g L_CCE`` of Eq. 5 in https://arxiv.org/abs/2202.11783, without a second loss. Written with plain
    tensor operations, so that it can be scripted, traced, exported and used under ``torch.func.vmap``.

    Args:
        x: any floating point tensor.
        strength: factor of the reversed gradient; 0 lets no gradient through.

    Example:
        >>> x = torch.ones(3, requires_grad=True)
        >>> reverse_gradient(x, 0.5).sum().backward()
        >>> x.grad
        tensor([-0.5000, -0.5000, -0.5000])
    """
    weight = -strength.to(x.dtype) if isinstance(strength, torch.Tensor) else -strength
    return torch.lerp(x.detach(), x, weight)  # detached + weight * (x - detached) in one go
