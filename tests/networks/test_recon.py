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

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from monai.networks.nets import DenseNet, UNet

from monai_armed.networks.blocks.recon import RECON, RECONNorm
from monai_armed.networks.layers.given_cluster import ClusterLayer, given_cluster

NORM = ("recon", {"num_clusters": 3})
SHAPES = [(4, 5, 8, 6), (4, 5, 4, 6, 5)]


def randomised(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """The network in evaluation mode, its normalisations with effects and population values that are not the start."""
    torch.manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, RECONNorm):
            torch.nn.init.normal_(layer.weight, 1, 0.2)
            torch.nn.init.normal_(layer.bias, 0, 0.2)
            torch.nn.init.normal_(layer.effects.loc, 0, 0.5)
    return network.eval()


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def by_hand(norm: RECONNorm, x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
    """The formula of the docstring, sample by sample and channel by channel."""
    out = torch.empty_like(x)
    for i, sample in enumerate(x):
        for c, channel in enumerate(sample):
            normed = (channel - channel.mean()) / (channel.var(correction=0) + 1e-5).sqrt()
            out[i, c] = (norm.weight[c] * normed + norm.bias[c]) * (1 + gamma[i, c]) + beta[i, c]
    return out


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_formula_with_the_effects_of_each_samples_cluster(shape):
    norm, x, cluster = randomised(RECONNorm(5, 3)), images(*shape), torch.tensor([2, 0, -1, 2])
    table = torch.cat([norm.effects.loc, torch.zeros(1, 10)])  # the last row, -1: the population
    gamma, beta = table[cluster, :5], table[cluster, 5:]
    with given_cluster(norm, cluster):
        torch.testing.assert_close(norm(x), by_hand(norm, x, gamma, beta))


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_where_the_cluster_is_not_known_the_population_holds(shape):
    norm, x = randomised(RECONNorm(5, 3)), images(*shape)
    population = by_hand(norm, x, torch.zeros(4, 5), torch.zeros(4, 5))
    torch.testing.assert_close(norm(x), population)
    for cluster in (None, torch.full((4,), -1)):
        with given_cluster(norm, cluster):
            torch.testing.assert_close(norm(x), population)
    norm.train()  # nothing is drawn where the cluster is not known
    with given_cluster(norm, torch.full((4,), -1)):
        torch.testing.assert_close(norm(x), population)


@torch.no_grad()
def test_a_soft_assignment_mixes_the_clusters():
    norm, x = randomised(RECONNorm(5, 3)), images(2, 5, 8, 8)
    outs = []
    for cluster in (torch.tensor([0, 0]), torch.tensor([2, 2]), torch.tensor([[0.25, 0.0, 0.75]] * 2)):
        with given_cluster(norm, cluster):
            outs.append(norm(x))
    assert (outs[0] - outs[1]).abs().max() > 0.1
    torch.testing.assert_close(outs[2], 0.25 * outs[0] + 0.75 * outs[1])


@torch.no_grad()
def test_in_training_the_effects_are_drawn_anew():
    norm, x, cluster = RECONNorm(5, 3, posterior_scale=0.1), images(4, 5, 8, 8), torch.tensor([0, 1, 2, 0])
    with given_cluster(norm, cluster):
        assert (norm(x) - norm(x)).abs().max() > 1e-3
        torch.testing.assert_close(norm.eval()(x), norm(x))


@pytest.mark.parametrize(
    "network, shape",
    [
        (lambda: UNet(2, 1, 1, (4, 8, 8), (2, 2), norm=NORM), (3, 1, 32, 32)),
        (lambda: UNet(3, 1, 1, (4, 8), (2,), norm=NORM), (3, 1, 16, 16, 16)),
        (lambda: DenseNet(2, 1, 2, init_features=4, growth_rate=4, block_config=(2, 2), norm=NORM), (3, 1, 32, 32)),
        (lambda: RECON(2, 1, 4, 3, random_effects={"prior_scale": 0.2}, strides=2), (3, 1, 32, 32)),
        (lambda: RECON(3, 1, 4, 3), (3, 1, 8, 8, 8)),
    ],
    ids=["unet", "unet 3-D", "densenet", "recon", "recon 3-D"],
)
@torch.no_grad()
def test_clusters_reach_the_inside_of_a_network(network, shape):
    net, x = randomised(network()), images(*shape)
    assert len([m for m in net.modules() if isinstance(m, ClusterLayer)]) > 0
    population = net(x)
    with given_cluster(net, torch.tensor([0, -1, 2])):
        out = net(x)
    with given_cluster(net, torch.tensor([0, 1, 0])):
        other = net(x)
    torch.testing.assert_close(out[0], other[0])  # a sample's output depends on its own cluster only
    torch.testing.assert_close(out[1], population[1])
    for changed, reference in ((out[0], population[0]), (out[2], population[2]), (out[2], other[2])):
        assert (changed - reference).abs().max() > 1e-2
    torch.testing.assert_close(net(x), population)


@torch.no_grad()
def test_the_convolution_takes_its_cluster_as_an_argument():
    net, x, cluster = randomised(RECON(2, 1, 4, 3)), images(3, 1, 8, 8), torch.tensor([0, 1, 2])
    with given_cluster(net, cluster):
        expected = net(x)
    torch.testing.assert_close(net(x, cluster), expected)
    with given_cluster(net, cluster.flip(0)):  # the argument goes before the context, which stays open
        torch.testing.assert_close(net(x, cluster), expected)
        assert (net(x) - expected).abs().max() > 1e-2


def test_threads_share_a_network():
    torch.manual_seed(0)
    net = randomised(UNet(2, 1, 1, (4, 8), (2,), norm=NORM)).eval()
    calls = [(torch.randn(5, 1, 16, 16), torch.randint(3, (5,))) for _ in range(4)]

    def predict(call: tuple[torch.Tensor, torch.Tensor]) -> list[torch.Tensor]:
        with torch.no_grad(), given_cluster(net, call[1]):
            return [net(call[0]) for _ in range(10)]

    wanted = [predict(call)[0] for call in calls]
    with ThreadPoolExecutor(4) as pool:
        for found, right in zip(pool.map(predict, calls), wanted):
            assert all(torch.equal(out, right) for out in found)


def test_a_cluster_that_a_layer_does_not_have_is_refused_at_once():
    norm = RECONNorm(5, 3)
    with pytest.raises(ValueError, match="cluster index 3 is out of range: the random effects have clusters 0 to 2"):
        with given_cluster(norm, torch.tensor([0, 3])):
            raise AssertionError("it was opened")


def test_the_context_is_left_by_an_exception_too():
    net = UNet(2, 1, 1, (4, 8), (2,), norm=NORM)
    layers = [m for m in net.modules() if isinstance(m, RECONNorm)]
    outer, inner = torch.tensor([0]), torch.tensor([1])
    with given_cluster(net, outer):
        with pytest.raises(RuntimeError, match="stop"), given_cluster(net, inner):
            assert all(layer.cluster is inner for layer in layers)
            raise RuntimeError("stop")
        assert all(layer.cluster is outer for layer in layers)
    assert layers and all(layer.cluster is None for layer in layers)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 5), (1, 1, 1), (2, 2, 2)])
@pytest.mark.parametrize("batch", [1, 4])
def test_small_maps_keep_what_they_say(size, batch):
    norm, x = RECONNorm(32, 3), images(batch, 32, *size).requires_grad_()
    out = norm(x)
    target = images(batch, 32, *size).roll(1, dims=1)
    (out * target).sum().backward()
    assert x.grad.abs().max() > 0.1
    with torch.no_grad():
        each = torch.stack([x.flatten(1), out.flatten(1)])
        for before, after in each.unbind(1):  # all values of a sample, whose order and spacing must stay
            assert torch.corrcoef(torch.stack([before, after]))[0, 1] > 0.999
            torch.testing.assert_close(after.std(correction=0), torch.tensor(1.0), rtol=1e-3, atol=0)


@pytest.mark.parametrize("size, channel_mean", [((2, 4), True), ((4, 4), False), ((2, 2, 4), False)])
@torch.no_grad()
def test_maps_of_16_positions_are_normalised_channel_by_channel(size, channel_mean):
    out = RECONNorm(8, 3)(images(2, 8, *size) + torch.arange(8.0).view(1, 8, *[1] * len(size)))
    assert bool((out.flatten(2).mean(-1).abs() > 1e-3).any()) == channel_mean


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_batch_normalisation_in_place_of_instance_normalisation(shape):
    norm, x, cluster = RECONNorm(5, 3, normalization="batch"), 3 + images(*shape), torch.tensor([2, 0, -1, 2])
    randomised(norm).train()
    norm.effects.eval()  # posterior means, not draws
    gamma, beta = torch.cat([norm.effects.loc, torch.zeros(1, 10)])[cluster].chunk(2, dim=1)
    spatial = (...,) + (None,) * (x.ndim - 2)
    population = F.batch_norm(x, None, None, norm.weight, norm.bias, training=True)
    with given_cluster(norm, cluster):
        torch.testing.assert_close(norm(x), population * (1 + gamma)[spatial] + beta[spatial])
        for _ in range(99):
            norm(x)
        out = norm.eval()(x)  # the running statistics are now those of these images
        torch.testing.assert_close(out, population * (1 + gamma)[spatial] + beta[spatial], atol=1e-2, rtol=1e-2)
        assert (norm(2 * x) - norm(x)).abs().max() > 0.5  # contrast is kept


def test_effects_and_their_learned_sd_get_gradients():
    norm, x, cluster = RECONNorm(5, 3), images(4, 5, 8, 8), torch.tensor([0, 0, 2, -1])
    with given_cluster(norm, cluster):
        out = norm(x)
    kl = norm.effects.kl()
    assert kl.item() > 0
    ((out - x).square().mean() + kl).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in norm.parameters())
    assert (norm.effects.log_prior_scale.grad.abs() > 0).all()
    likelihood = torch.autograd.grad(_loss(norm, x, cluster), norm.effects.loc)[0].abs().sum(1)
    assert likelihood[0] > 0 and likelihood[2] > 0 and likelihood[1] == 0  # no sample is of cluster 1


def _loss(norm: RECONNorm, x: torch.Tensor, cluster: torch.Tensor) -> torch.Tensor:
    with given_cluster(norm, cluster):
        return (norm(x) - 2 * x).square().mean()


def test_the_learned_sd_tells_a_channel_whose_scale_differs_from_one_that_does_not():
    torch.manual_seed(0)
    norm, noise = RECONNorm(2, 8), 0.1
    x, cluster = torch.randn(64, 2, 6, 6), torch.arange(8).repeat(8)
    gamma = torch.stack([torch.linspace(-0.6, 0.6, 8), torch.zeros(8)], dim=1)
    target = F.instance_norm(x) * (1 + gamma[cluster])[..., None, None] + noise * torch.randn_like(x)
    optimizer = torch.optim.Adam(norm.parameters(), 0.03)
    for _ in range(200):
        optimizer.zero_grad()
        with given_cluster(norm, cluster):
            loss = (norm(x) - target).square().sum() / (2 * noise**2) + norm.effects.kl()  # negative ELBO
        loss.backward()
        optimizer.step()
    scale, loc = norm.effects.prior_scale.detach(), norm.effects.loc.detach()
    assert scale[0] == pytest.approx(gamma[:, 0].square().mean().sqrt().item(), rel=0.2)
    assert (scale[1:] < scale[0] / 5).all()
    torch.testing.assert_close(loc[:, :2], gamma, atol=0.1, rtol=0)


@torch.no_grad()
def test_state_dict_and_deep_copy():
    net, other_start = (UNet(2, 1, 1, (4, 8), (2,), norm=NORM) for _ in range(2))
    x, cluster = images(3, 1, 16, 16), torch.tensor([0, 1, 2])
    with given_cluster(randomised(net), cluster):
        expected = net(x)
        inside = copy.deepcopy(net)
    other_start.eval().load_state_dict(net.state_dict())
    for other in (other_start, copy.deepcopy(net), inside):
        with given_cluster(other, cluster):
            torch.testing.assert_close(other(x), expected)
    torch.nn.init.zeros_(next(m for m in inside.modules() if isinstance(m, RECONNorm)).effects.loc)
    with given_cluster(net, cluster):
        torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_clusters": 0}, "num_clusters must be at least 1"),
        ({"num_clusters": 3, "normalization": "group"}, "must be 'instance' or 'batch', got 'group'"),
        ({"num_clusters": 3, "prior_scale": 0.0}, "prior_scale must be positive"),
        ({"num_clusters": 3, "posterior_scale": -1.0}, "posterior_scale must be positive"),
    ],
)
def test_clear_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        RECONNorm(4, **arguments)
