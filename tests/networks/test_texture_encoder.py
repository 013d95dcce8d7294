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

from monai_armed.networks.blocks import TextureEncoder
from monai_armed.networks.nets import AEC

SMALL = {"channels": (4, 8), "latent_channels": 5, "classifier_channels": 4}


def test_a_training_batch_is_turned_and_an_image_to_predict_is_not():
    torch.manual_seed(0)
    net, x = TextureEncoder(3, (4, 4)), torch.rand(2, 1, 16, 16)
    seen: list[torch.Tensor] = []
    net.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for _ in range(60):
        net(x)
    turned = [torch.rot90(y, k, (-2, -1)) for y in (x, x.flip(-1)) for k in range(4)]
    assert all(any(torch.equal(y, image) for y in seen) for image in turned) and len(turned) == 8
    seen.clear()
    assert net.eval()(x).shape == (2, 3) and torch.equal(seen[0], x)


def test_the_texture_is_read_by_the_classifier_and_not_decoded():
    torch.manual_seed(0)
    net, x = AEC((1, 16, 16), texture=TextureEncoder(3, (4, 4)), **SMALL).eval(), torch.rand(2, 1, 16, 16)
    latent = net.encode(x)
    assert latent.shape == (2, 8) and net.latent_channels == 8
    assert [layer.out_features for layer in net.latent_layers.values()] == [5, 3]
    torch.testing.assert_close(latent[:, 5:], net.texture(x))
    other = latent.clone()
    other[:, 5:] += 1
    assert torch.equal(net.decode(latent), net.decode(other))
    assert not torch.allclose(net.classify(latent), net.classify(other))
