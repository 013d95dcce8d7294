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

__all__ = ["spatial_statistics"]


class _SpatialStatistics(torch.autograd.Function):
    """``torch.var_mean`` takes five passes over the tensor in the backward pass, and a slow one in the forward pass."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
        mean = x.mean(dim=-1)
        square = torch.linalg.vector_norm(x, dim=-1).square() / x.shape[-1]
        return mean, (square - mean.square()).clamp(min=0).add(eps).sqrt()

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: tuple) -> None:
        ctx.save_for_backward(inputs[0], *output)

    @staticmethod
    def backward(ctx, mean_grad: torch.Tensor, sd_grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        x, mean, sd = ctx.saved_tensors
        slope = sd_grad / (sd * x.shape[-1])
        offset = mean_grad / x.shape[-1] - slope * mean
        return torch.addcmul(offset.unsqueeze(-1), slope.unsqueeze(-1), x), None


def spatial_statistics(x: torch.Tensor, eps: float = 1e-6) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Mean and s.d. over the last dimension, in one pass over the tensor forwards and one backwards. The variance is the
    mean square less the squared mean: meant for features, whose mean is not thousands of times their s.d.

    Args:
        x: (..., N), such as channels with flattened space.
        eps: added to the variance.

    Returns:
        mean and s.d., each (...).
    """
    return _SpatialStatistics.apply(x, eps)
