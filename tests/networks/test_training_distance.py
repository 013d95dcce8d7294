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

import numpy as np
import pandas as pd
import pytest
import torch
from monai.networks.nets import DenseNet121, UNet

from monai_armed.networks import ARMED, CNN, DFNN, ClusterInput
from monai_armed.networks.nets import AEC, ARMEDAEC, ZPredictor
from monai_armed.networks.training_distance import (
    TrainingDistance,
    distance_columns,
    fit_training_distance,
    warn_of_distance,
)


def blobs(number: int, seed: int, size: int = 16) -> torch.Tensor:
    """Smooth images: a bright disc whose place and size vary."""
    draw = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    centre = size * (0.4 + 0.2 * torch.rand(number, 2, 1, 1, generator=draw))
    radius = size * (0.2 + 0.1 * torch.rand(number, 1, 1, generator=draw))
    return torch.sigmoid(radius - ((y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2).sqrt()).unsqueeze(1)


def loader(x: torch.Tensor, size: int = 40) -> list[dict]:
    return [{"image": part} for part in x.split(size)]


def fitted(network: torch.nn.Module, **options) -> TrainingDistance:
    return fit_training_distance(network, loader(blobs(200, 0)), loader(blobs(400, 1)), **options)


def networks():
    torch.manual_seed(0)
    shape = (1, 16, 16)
    z = ZPredictor(CNN(shape, 3, (4, 4)), 3)
    classifier = CNN(shape, 3, (4, 4))
    recon = AEC(shape, 0, (4, 4), 5, norm=("recon", {"num_clusters": 3}))
    yield CNN(shape, 1, (4, 8), 8)
    yield ARMED(CNN(shape, 1, (4, 8), 8), 3, shape, unknown="error").attach_z_predictor(z)
    yield ARMED(UNet(2, 1, 2, (4, 8, 8), (2, 2)), 3, shape)
    yield ClusterInput(CNN(shape, 1, (4, 8), 8), 3, "dense.0", unknown="error")
    yield ARMEDAEC(AEC(shape, 1, (4, 4), 5), 3, shape, recon, image_classifier=classifier)


@pytest.mark.parametrize("network", list(networks()), ids=lambda net: type(net).__name__)
def test_what_is_like_training_is_near_and_noise_is_far(network):
    distance = fitted(network)
    new, far = blobs(300, 2), {}
    draw = torch.Generator().manual_seed(3)
    far["noise"] = torch.rand(20, 1, 16, 16, generator=draw)
    far["constant"] = torch.full((5, 1, 16, 16), 0.5)
    far["inverted"] = 1 - new[:20]
    far["not a number"] = torch.full((1, 1, 16, 16), torch.nan)
    assert float((distance(network, new) > distance.threshold).double().mean()) < 0.05
    for name, x in far.items():
        assert bool((distance(network, x) > distance.threshold).all()), name


def test_the_distance_is_that_of_mahalanobis_in_the_layer_where_it_is_largest():
    torch.manual_seed(0)
    network = DFNN(3, 1, (4,)).eval()
    train, held_out, new = (torch.randn(n, 3, generator=torch.Generator().manual_seed(n)) for n in (4000, 500, 7))
    distance = fit_training_distance(network, loader(train), loader(held_out), layers=["hidden.0"])
    scores = []
    for features in (lambda x: x.double(), lambda x: network.hidden[0](x).detach().double()):
        centre = features(train).mean(0)
        precision = torch.linalg.inv(torch.cov(features(train).T, correction=0))

        def log_distance(x, features=features, centre=centre, precision=precision):
            rest = features(x) - centre
            return torch.einsum("bi,ij,bj->b", rest, precision, rest).sqrt().log()

        known = log_distance(held_out)
        scores.append((log_distance(new) - known.mean()) / known.std())
    torch.testing.assert_close(distance(network, new), torch.stack(scores).amax(0), atol=0.02, rtol=0.02)


def test_one_in_a_hundred_held_out_samples_is_beyond_the_threshold():
    network = CNN((1, 16, 16), 1, (4, 8), 8)
    held_out = blobs(399, 1)
    distance = fit_training_distance(network, loader(blobs(200, 0)), loader(held_out))
    assert int((distance(network, held_out) > distance.threshold).sum()) == 3  # the 396th of 399 is the threshold


def test_the_network_is_left_as_it_was_and_batches_make_no_difference():
    network = ARMED(CNN((1, 16, 16), 1, (4, 8), 8, dropout=0.5), 3, (1, 16, 16)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    distance, x = fitted(network), blobs(7, 4)
    assert network.training and all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    other = fit_training_distance(network, loader(blobs(200, 0), 7), loader(blobs(400, 1), 100))
    torch.testing.assert_close(distance(network, x), other(network, x), atol=1e-3, rtol=1e-4)
    one_by_one = torch.cat([distance(network, image) for image in x.split(1)])
    torch.testing.assert_close(distance(network, x), one_by_one, atol=1e-3, rtol=1e-4)


def test_of_a_wide_layer_each_feature_counts_alone(monkeypatch):
    network, x = DFNN(3, 1, (4,)), torch.randn(40, 3)
    monkeypatch.setattr("monai_armed.networks.training_distance.WIDE", 2)
    distance = fit_training_distance(network, loader(x, 7), loader(torch.randn(90, 3)), layers=[])
    own = distance.layers["<input>"]
    wanted = ((x.double() - x.double().mean(0)) / x.double().std(0, correction=0)).square().sum(1).sqrt().log()
    torch.testing.assert_close(own.log_distance(x.double()), wanted, atol=1e-5, rtol=1e-5)
    again = TrainingDistance.from_state_dict(distance.state_dict())
    assert torch.equal(again(network, x), distance(network, x))


def test_it_is_the_same_while_the_network_describes_samples_of_unknown_clusters():
    *_, network = networks()
    distance, x, unknown = fitted(network.eval()), blobs(20, 2), torch.full((20,), -1)
    with distance.watch(network, x) as found:
        described = network.describe(x, unknown)
    assert len(found) == 1 and torch.equal(found[0], distance(network, x))
    network.training_distance = distance
    assert distance_columns(network, x, *found) == distance_columns(network, x)
    for name, value in network.describe(x, unknown).items():  # and the network is left as it was
        assert torch.equal(value, described[name])


def test_it_is_the_same_after_saving():
    network = DFNN(3)
    distance = fit_training_distance(
        network, loader(torch.randn(50, 3)), loader(torch.randn(20, 3)), layers=["hidden.1", "hidden.2"]
    )
    again, x = TrainingDistance.from_state_dict(distance.state_dict()), torch.randn(9, 3)
    assert again.threshold == distance.threshold and torch.equal(again(network, x), distance(network, x))


def test_features_that_never_vary_are_no_reason_to_fail():
    network = DFNN(3, 1, (4, 4))
    torch.nn.init.constant_(network.hidden[1][0].bias, -100.0)  # a dead layer
    x = torch.cat([torch.randn(60, 2), torch.ones(60, 1)], dim=1)  # and a constant column
    distance = fit_training_distance(network, loader(x[:40]), loader(x[40:]))
    beside = x[:5] + torch.tensor([0.0, 0.0, 50.0])
    assert distance(network, x).isfinite().all() and bool((distance(network, beside) > distance.threshold).all())


def test_data_of_which_nothing_can_be_told():
    network = DFNN(3)
    for train, held_out in (([], [1]), (torch.randn(9, 3), torch.randn(1, 3)), (torch.ones(9, 3), torch.randn(5, 3))):
        with pytest.raises(ValueError, match="needs training samples whose features vary, and at least 2 held-out"):
            fit_training_distance(network, loader(torch.as_tensor(train)) if len(train) else [], loader(held_out)
                                  if isinstance(held_out, torch.Tensor) else [])  # fmt: skip


def test_a_large_monai_network():
    torch.manual_seed(0)
    network = ARMED(DenseNet121(2, 1, 1), 3, (1, 32, 32))
    distance = fit_training_distance(network, loader(blobs(40, 0, 32)), loader(blobs(20, 1, 32)))
    assert bool((distance(network, torch.rand(3, 1, 32, 32)) > distance.threshold).all())


def test_columns_and_warning():
    network, x = CNN((1, 16, 16), 1, (4, 8), 8), torch.cat([blobs(2, 4), torch.rand(1, 1, 16, 16)])
    assert distance_columns(network, x) == {}
    network.training_distance = fitted(network)
    table = pd.DataFrame(distance_columns(network, x))
    assert table["unlike_training"].tolist() == [False, False, True]
    assert np.array_equal(table["unlike_training"], table["distance"] > network.training_distance.threshold)
    with pytest.warns(UserWarning, match=r"^1 of 3 samples are unlike what the model was trained on .*: c\.$"):
        warn_of_distance(["a", "b", "c"], table["unlike_training"].tolist())
