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
from torch import nn

from monai_armed.networks import CNN, DFNN, ClusterInput, ZPredictor
from monai_armed.networks.nets import ConvAdversary, DenseAdversary, PooledAdversary, WhitenedAdversary


def test_cnn_is_the_papers():
    net = CNN((1, 192, 192), dropout=(0, 0.5, 0, 0.5, 0, 0.5, 0))
    assert net.dense[0].in_features == 512 * 3 * 3 and net.head.in_features == 512
    assert net(torch.rand(2, 1, 192, 192)).shape == (2, 1)
    assert CNN((1, 16, 16, 16), 3, channels=(4, 8), dense_channels=8)(torch.rand(2, 1, 16, 16, 16)).shape == (2, 3)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"in_shape": (1, 32, 32)}, "too small for 7 blocks"),
        ({"dropout": (0.5,)}, "dropout must be one number or one"),
        ({"dropout": 2}, "dropout must be a probability"),
    ],
)
def test_cnn_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        CNN(**{"in_shape": (1, 192, 192), **kwargs})


@pytest.mark.parametrize("unknown", ["population", "infer"])
def test_cluster_input_joins_one_hot(unknown):
    torch.manual_seed(0)
    net = ClusterInput(DFNN(4), 3, "hidden.0.0").eval()
    x, cluster = torch.randn(4, 4), torch.tensor([0, 2, 1, -1])
    z = torch.nn.functional.one_hot(cluster.clamp(min=0), 3).float()
    z[3] = 0
    if unknown == "infer":
        z_predictor = ZPredictor(DFNN(4, 3), 3).eval()
        net.attach_z_predictor(z_predictor)
        z[3] = z_predictor(x)[3]
    plain = net.network.hidden[0][0](torch.cat([x, z], dim=1))
    by_hand = net.network.head(net.network.hidden[1:](torch.relu(plain)))
    torch.testing.assert_close(net(x, cluster), by_hand)
    torch.testing.assert_close(net(x, z), by_hand)
    assert not net.network.hidden[0][0]._forward_pre_hooks


def test_cluster_input_needs_a_linear_layer():
    with pytest.raises(ValueError, match="must be a linear layer, got ReLU"):
        ClusterInput(DFNN(4), 3, "hidden.0.1")


def _clusters(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    cluster = torch.randint(3, (n,))
    return torch.nn.functional.one_hot(cluster, 3).float() * 1.5 + torch.randn(n, 3), cluster


def test_z_predictor_calibrates_on_held_out_data():
    x, cluster = _clusters(60)
    net = ZPredictor(DFNN(3, 3, hidden_channels=(64, 64)), 3)
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(150):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), cluster).backward()
        optimizer.step()
    net.eval()
    torch.manual_seed(1)
    new_cluster = torch.randint(3, (2000,))
    new = torch.nn.functional.one_hot(new_cluster, 3).float() * 1.5 + torch.randn(2000, 3)
    with torch.no_grad():
        over_confident = torch.nn.functional.nll_loss(net(new).log(), new_cluster)
        temperature = net.calibrate(net.logits(new), new_cluster)
        calibrated = torch.nn.functional.nll_loss(net(new).log(), new_cluster)
        again = net.calibrate(net.logits(new), new_cluster)
    assert temperature > 1.5 and calibrated < 0.7 * over_confident
    assert abs(again / temperature - 1) < 0.01
    assert "temperature" in net.state_dict()


def test_z_predictor_entropy():
    entropy = ZPredictor.entropy(torch.tensor([[1.0, 0, 0], [1 / 3, 1 / 3, 1 / 3]]))
    torch.testing.assert_close(entropy, torch.tensor([0.0, 1.0]))


def test_z_predictor_without_known_clusters():
    with pytest.raises(ValueError, match="no held-out sample of a known cluster"):
        ZPredictor(DFNN(3, 3), 3).calibrate(torch.zeros(2, 3), torch.tensor([-1, -1]))


def test_attach_refuses_other_clusters():
    net = ClusterInput(DFNN(4), 3, "hidden.0.0")
    with pytest.raises(ValueError, match="made for 5 clusters, the network for 3"):
        net.attach_z_predictor(ZPredictor(DFNN(4, 5), 5))
    with pytest.raises(ValueError, match="max_entropy must be between 0 and 1"):
        net.attach_z_predictor(ZPredictor(DFNN(4, 3), 3), max_entropy=2.0)


SHAPES = [(8, 16, 16), (4, 32, 32), (16, 8, 8), (5,)]


@pytest.mark.parametrize("kind", [PooledAdversary, WhitenedAdversary, DenseAdversary, ConvAdversary])
def test_adversary_uses_every_feature(kind):
    torch.manual_seed(0)
    adversary = kind(SHAPES, 6)
    features = [torch.randn(3, *s, requires_grad=True) for s in SHAPES]
    out = adversary(features)
    assert out.shape == (3, 6)
    out.pow(2).sum().backward()
    assert all(f.grad.abs().sum() > 0 for f in features)


def test_pooled_adversary_sees_mean_and_sd():
    tap = torch.randn(4, 3, 10, 10)
    adversary = PooledAdversary([(3, 10, 10)], 2)
    pooled = adversary._pool(tap)
    torch.testing.assert_close(pooled[:, :3], tap.mean((2, 3)))
    torch.testing.assert_close(pooled[:, 3:], tap.flatten(2).std(2, correction=0), atol=1e-3, rtol=1e-3)


def test_pooled_adversary_takes_a_batch_of_one():
    adversary = PooledAdversary(SHAPES, 6)
    adversary([torch.randn(8, *s) for s in SHAPES])
    one = [torch.randn(1, *s) for s in SHAPES]
    torch.testing.assert_close(adversary(one), adversary.eval()(one))


def correlated(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of one large common direction, and clusters that shift a small one."""
    cluster = torch.arange(count) % 2
    common = 10 * torch.randn(count, 1)
    small = 0.1 * torch.randn(count, 1) + 0.3 * cluster[:, None]
    return torch.cat([common + small, common - small], dim=1), cluster


def test_whitened_adversary_decorrelates_its_input():
    torch.manual_seed(0)
    adversary = WhitenedAdversary([(2,)], 2, shrinkage=1e-6)
    for _ in range(50):
        adversary([correlated(64)[0]])
    x, _ = correlated(4096)
    before = {name: value.clone() for name, value in adversary.state_dict().items()}
    white = adversary.eval()._whitened(x)
    torch.testing.assert_close(torch.cov(white.T), torch.eye(2), atol=0.15, rtol=0)
    for name, value in adversary.state_dict().items():  # evaluation leaves the statistics as they are
        torch.testing.assert_close(value, before[name])
    torch.testing.assert_close(adversary([x[:1]]), adversary([x])[:1], atol=1e-5, rtol=1e-4)


def test_whitened_adversary_finds_a_cluster_in_a_direction_that_hardly_varies():
    accuracy = {}
    for kind in (PooledAdversary, WhitenedAdversary):
        torch.manual_seed(0)
        options = {"shrinkage": 1e-6} if kind is WhitenedAdversary else {}
        adversary = kind([(2,)], 2, hidden_channels=(16,), **options)
        optimizer = torch.optim.Adam(adversary.parameters(), 1e-2)
        for _ in range(100):
            x, cluster = correlated(64)
            optimizer.zero_grad()
            nn.functional.cross_entropy(adversary([x]), cluster).backward()
            optimizer.step()
        x, cluster = correlated(2000)
        accuracy[kind] = (adversary.eval()([x]).argmax(1) == cluster).float().mean().item()
    assert accuracy[WhitenedAdversary] > 0.88  # Bayes: .93
    assert accuracy[PooledAdversary] < accuracy[WhitenedAdversary] - 0.1


def test_whitened_adversary_trains_under_autocast():
    adversary = WhitenedAdversary([(4,)], 3).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nn.functional.cross_entropy(adversary([torch.randn(8, 4)]).float(), torch.arange(8) % 3)
    loss.backward()
    assert torch.isfinite(loss) and adversary.covariance.dtype == torch.float32


def test_whitened_adversary_says_what_it_cannot_do():
    with pytest.raises(ValueError, match=r"momentum and shrinkage must be above 0, got 0\.1 and 0"):
        WhitenedAdversary([(2,)], 2, momentum=0.1, shrinkage=0)


def test_conv_adversary_needs_images():
    with pytest.raises(ValueError, match="needs features with 2 spatial dimensions"):
        ConvAdversary([(8,)], 3)
