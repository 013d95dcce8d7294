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
import torch.nn.functional as F

from monai_armed.networks.layers.given_cluster import given_cluster
from monai_armed.networks.nets.aec import AEC

SMALL = {"channels": (8, 8, 16, 16), "latent_channels": 16, "classifier_channels": 8}
RECON_NORM = ("recon", {"num_clusters": 3})
BATCH_RECON_NORM = ("recon", {"num_clusters": 3, "normalization": "batch"})


def patterns(count: int, size: int = 32) -> torch.Tensor:
    """Smooth random images (count, 1, size, size), each with mean 0 and s.d. 1."""
    noise = torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    x = F.interpolate(noise, size=(size, size), mode="bicubic")
    return (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True)


def trained(net: AEC, x: torch.Tensor, steps: int) -> list[float]:
    optimizer, losses = torch.optim.Adam(net.parameters(), 3e-3), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.mse_loss(net(x)[0], x)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("norm", ["batch", RECON_NORM, BATCH_RECON_NORM])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [64, 128])
def test_shapes_of_the_papers_six_blocks(size, channels, norm):
    net = AEC((channels, size, size), out_channels=2, norm=norm)
    x = torch.rand(2, channels, size, size)
    reconstruction, logits = net(x)
    assert reconstruction.shape == x.shape and logits.shape == (2, 2)
    assert net.encode(x).shape == (2, 56)
    net.eval()
    torch.testing.assert_close(net.decode(net.encode(x)), net(x)[0])


def test_the_papers_size_has_few_parameters():
    net = AEC((1, 256, 256), channels=(64, 64, 64, 128, 256, 512))
    assert 1e6 < sum(p.numel() for p in net.parameters()) < 20e6
    assert net.map_shape == (512, 4, 4)


def test_the_decoder_has_the_encoders_weights():
    net = AEC((1, 32, 32), **SMALL)
    net.decode(torch.randn(3, 16)).square().mean().backward()
    convolutions = [block.conv for block in net.encoder]
    for tied in (*convolutions, net.to_latent):
        assert tied.weight.grad.abs().max() > 0 and tied.bias.grad is None
    assert all(block.adn.A.weight.grad is None for block in net.encoder)
    weights = {name for name, p in net.named_parameters() if p.ndim > 1 and not name.startswith("classifier")}
    assert weights == {"map_bias", "to_latent.weight", *(f"encoder.{i}.conv.weight" for i in range(4))}


def test_a_last_block_without_what_meets_padding_says_and_learns_the_same():
    """At one position the inner 2 x 2 of the kernels reach the map; as if all of them were convolved with padding."""
    net = AEC((1, 16, 16), **SMALL).double()
    x = torch.rand(5, 1, 16, 16).double()
    out, weights = x, [block.conv.weight for block in net.encoder]
    for block, weight in zip(net.encoder, weights):
        out = block.adn(F.conv2d(out, weight, block.conv.bias, stride=2, padding=1))
    latent = net.to_latent(out.flatten(1))
    out = F.linear(latent, net.to_latent.weight.T).unflatten(1, (16, 1, 1)) + net.map_bias
    for block, weight, bias in zip(net.decoder, reversed(weights), net.biases):
        out = F.conv_transpose2d(block(out), weight, bias, stride=2, padding=1)
    reconstruction, _ = net(x)
    torch.testing.assert_close(reconstruction, out)
    wanted = torch.autograd.grad(out.square().sum(), weights)
    torch.testing.assert_close(torch.autograd.grad(reconstruction.square().sum(), weights), wanted)


@torch.no_grad()
def test_without_norm_and_activation_the_decoder_is_the_transposed_encoder():
    """<encode x, z> = <x, decode z> where everything between the tied layers is the identity and no bias is there."""
    net = AEC((2, 32, 32), **SMALL).double().eval()
    for module in net.modules():
        if isinstance(module, torch.nn.PReLU):
            module.weight.fill_(1)
    for name, parameter in net.named_parameters():
        if "bias" in name and not name.startswith("classifier"):
            parameter.zero_()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 2, 32, 32, dtype=torch.float64, generator=generator)
    z = torch.randn(1, 16, dtype=torch.float64, generator=generator)
    # the batch norm at the start divides by sqrt(1 + eps), as often in the decoder as in the encoder
    torch.testing.assert_close((net.encode(x) * z).sum(), (x * net.decode(z)).sum())


@pytest.mark.parametrize("shape", [(1, 96, 96), (1, 64, 128), (1, 0, 0), (1, 64), (1, 64, 64, 64)])
def test_sizes_that_do_not_fit(shape):
    with pytest.raises(ValueError, match=r"multiple of 64, as 6 blocks halve it that often, got .*: resize or pad"):
        AEC(shape)


@pytest.mark.parametrize("norm", ["batch", RECON_NORM, BATCH_RECON_NORM])
def test_it_learns_to_reconstruct_a_few_images(norm):
    torch.manual_seed(0)
    x = 0.5 + 0.2 * patterns(8)
    losses = trained(AEC((1, 32, 32), norm=norm, **SMALL), x, 30)
    assert losses[-1] < losses[0] / 2


@torch.no_grad()
def test_instance_normalisation_hides_the_contrast_and_batch_normalisation_keeps_it():
    torch.manual_seed(0)
    x, change = patterns(2), []
    for norm in (RECON_NORM, BATCH_RECON_NORM):
        net = AEC((1, 32, 32), norm=norm, **SMALL).eval()
        change.append((net.encode(3 * x) - net.encode(x)).norm() / net.encode(x).norm())
    assert change[0] < 1e-3 < 0.1 < change[1]


@torch.no_grad()
def test_clusters_reach_encoder_and_decoder():
    torch.manual_seed(0)
    net, x = AEC((1, 32, 32), norm=RECON_NORM, **SMALL).eval(), patterns(2)
    for name, parameter in net.named_parameters():
        if name.endswith("effects.loc"):
            torch.nn.init.normal_(parameter, 0, 0.3)
    latent = net.encode(x)
    image = net.decode(latent)
    with given_cluster(net, torch.tensor([1, -1])):
        other_latent, other_image = net.encode(x), net.decode(latent)
    assert (other_latent[0] - latent[0]).abs().max() > 1e-2 and (other_image[0] - image[0]).abs().max() > 1e-2
    torch.testing.assert_close(other_latent[1], latent[1])
    torch.testing.assert_close(other_image[1], image[1])
