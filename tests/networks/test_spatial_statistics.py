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
from torch.func import grad, vmap

from monai_armed.networks.nets.adversary_classifiers import spatial_statistics


def plain(x, eps=1e-6):
    var, mean = torch.var_mean(x, dim=-1, correction=0)
    return mean, (var + eps).sqrt()


def test_values_and_gradients_are_those_of_var_mean():
    torch.manual_seed(0)
    x = (3 + torch.randn(2, 5, 40, dtype=torch.float64)).requires_grad_()
    for got, wanted in zip(spatial_statistics(x), plain(x)):
        torch.testing.assert_close(got, wanted)
    assert torch.autograd.gradcheck(spatial_statistics, x)
    assert torch.autograd.gradgradcheck(spatial_statistics, x)


def test_single_precision_where_the_mean_is_large():
    x = 50 + torch.randn(4, 3, 10_000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(spatial_statistics(x)[1], plain(x)[1], rtol=1e-2, atol=0)


def test_a_constant_has_finite_gradients():
    x = torch.full((1, 2, 9), 7.0, requires_grad=True)
    mean, sd = spatial_statistics(x)
    (mean + sd).sum().backward()
    assert torch.isfinite(sd).all() and torch.isfinite(x.grad).all()


def test_under_vmap_of_grad():
    x = torch.randn(3, 2, 8, generator=torch.Generator().manual_seed(0))
    got = vmap(grad(lambda t: spatial_statistics(t)[1].sum()))(x)
    wanted = vmap(grad(lambda t: plain(t)[1].sum()))(x)
    torch.testing.assert_close(got, wanted)
