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

"""Layers of a network that was erased are called as before, however often it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_armed.audit.erase import write_erased
from monai_armed.audit.networks import layer_prefix, open_network
from monai_armed.audit.readings import read_network
from monai_armed.networks.erasure import ClusterEraser


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool, self.head = torch.nn.Conv2d(1, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.conv(x)).flatten(1))


@pytest.mark.parametrize("times", [0, 1, 2])
def test_layers_of_an_erased_network_keep_their_names(times, tmp_path):
    torch.manual_seed(0)
    x = torch.rand(6, 1, 8, 8)
    network, path = Net().eval(), tmp_path / "0.pt2"
    sizes = ({0: torch.export.Dim.AUTO},)
    torch.export.save(torch.export.export(network, (x[:2],), dynamic_shapes=sizes), path)
    for k in range(times):
        opened, path = open_network(path), tmp_path / f"{k + 1}.pt2"
        write_erased(opened, layer_prefix(opened) + "conv", ClusterEraser(4), x[:2], path)
    opened = open_network(path)
    assert layer_prefix(opened) == "network." * times
    usual = read_network(opened, [{"image": x}])
    assert not any(name.startswith("network.") for name in usual.layers)
    asked = read_network(opened, [{"image": x}], ["conv", "pool"])
    assert set(asked.channels) == {"conv", "pool"}
    with torch.no_grad():
        features = network.conv(x).mean((2, 3)).numpy()
    np.testing.assert_allclose(asked.layers["conv"][:, :4], features, rtol=1e-4, atol=1e-5)
    doubled = read_network(opened, [{"image": x}], (), changes={"pool": lambda value: 2 * value})
    with torch.no_grad():
        wanted = network.head(2 * network.pool(network.conv(x)).flatten(1))[:, 0]
    np.testing.assert_allclose(doubled.score, wanted.numpy(), rtol=1e-4, atol=1e-5)
