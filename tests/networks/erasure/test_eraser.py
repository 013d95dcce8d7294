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

import warnings

import pytest
import torch

from monai_armed.networks.erasure import ClusterEraser, FeatureSums, fit_eraser, fold_eraser


@pytest.fixture
def features():
    torch.manual_seed(0)
    return torch.randn(60, 8) + 3 * torch.randn(3, 8)[torch.arange(60) % 3]


@pytest.fixture
def eraser(features):
    """As a network has it: built with the network, and filled when the eraser is fitted."""
    sums = FeatureSums(8, 3)
    sums.update(features, torch.arange(60) % 3)
    eraser = ClusterEraser(8)
    eraser.load_state_dict(fit_eraser(sums).state_dict())
    return eraser


def test_it_starts_as_the_identity(features):
    torch.testing.assert_close(ClusterEraser(8)(features), features, rtol=0, atol=0)


@pytest.mark.parametrize("bias", [True, False])
def test_folded_into_a_layer_it_does_the_same(features, eraser, bias):
    layer = torch.nn.Linear(8, 8, bias)
    wanted = eraser(layer(features)).detach()
    fold_eraser(layer, eraser)
    torch.testing.assert_close(layer(features).detach(), wanted.to(features.dtype), rtol=1e-4, atol=1e-4)


def test_it_travels_with_the_network(features, eraser):
    network, other = (torch.nn.Sequential(torch.nn.Linear(8, 8), ClusterEraser(8)) for _ in range(2))
    network[1].load_state_dict(eraser.state_dict())
    other.load_state_dict(network.state_dict())
    torch.testing.assert_close(other(features), network(features), rtol=0, atol=0)
    assert int(other[1].rank) == 2 and "8, rank=2" in repr(other)
    assert not list(eraser.parameters())


def test_maps_are_erased_channel_by_channel(features, eraser):
    maps = torch.randn(5, 8, 4, 3)
    erased = eraser(maps)
    torch.testing.assert_close(erased[:, :, 2, 1], eraser(maps[:, :, 2, 1]))
    torch.testing.assert_close(erased.mean(dim=(2, 3)), eraser(maps.mean(dim=(2, 3))))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_features_keep_their_type(features, eraser, dtype):
    erased = eraser(features.to(dtype))
    assert erased.dtype == dtype
    torch.testing.assert_close(erased.float(), eraser(features), rtol=0, atol=0.1)


def test_half_precision_of_the_network_leaves_nothing_of_the_clusters(features, eraser):
    with torch.autocast("cpu", torch.bfloat16):
        erased = eraser(features)
    torch.testing.assert_close(erased, eraser(features), rtol=0, atol=0)


def test_gradients_go_through_but_for_what_is_erased(features, eraser):
    features.requires_grad_()
    eraser(features).square().sum().backward()
    assert torch.linalg.matrix_rank(features.grad, rtol=1e-4) == 8 - 2


def test_it_exports(features, eraser):
    traced = torch.jit.trace(eraser.eval(), features)
    torch.testing.assert_close(traced(features), eraser(features))
    exported = torch.export.export(eraser, (features,)).module()
    torch.testing.assert_close(exported(features), eraser(features))


@pytest.mark.parametrize("dim", [1, -1])
def test_the_older_onnx_export_of_maps_and_tokens_loads(eraser, dim, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    eraser.channel_dim = dim
    x = torch.randn(2, 8, 5, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(eraser.eval(), (x,), str(tmp_path / "eraser.onnx"), input_names=["x"], dynamo=False)
    session = onnxruntime.InferenceSession(str(tmp_path / "eraser.onnx"))
    torch.testing.assert_close(torch.from_numpy(session.run(None, {"x": x.numpy()})[0]), eraser(x))


def test_no_features_are_refused():
    with pytest.raises(ValueError, match="num_features must be at least 1, got 0"):
        ClusterEraser(0)
