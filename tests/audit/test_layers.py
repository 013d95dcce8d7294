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

"""Which layers of an exported transformer are looked at and erased."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.networks.nets import ViT

from monai_armed.audit.erase import write_erased
from monai_armed.audit.erased import Told, layer_eraser
from monai_armed.audit.layers import usual_layers
from monai_armed.audit.networks import open_network
from monai_armed.audit.readings import read_network
from monai_armed.networks.erasure import fit_erasers
from monai_armed.networks.nets import ARMED


class First(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        options = {"hidden_size": 12, "mlp_dim": 16, "num_layers": 2, "num_heads": 2, "spatial_dims": 2}
        self.vit = ViT(1, (16, 16), (8, 8), classification=True, post_activation="", **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.vit(x)[0]


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    path = tmp_path_factory.mktemp("vit") / "vit.pt2"
    sizes = ({0: torch.export.Dim.AUTO},)
    torch.export.save(torch.export.export(First().eval(), (torch.rand(2, 1, 16, 16),), dynamic_shapes=sizes), path)
    return open_network(path)


def test_an_exported_transformer_shows_its_tokens_as_it_does_before(opened):
    assert usual_layers(opened, (1, 16, 16)) == [f"vit.{name}" for name in usual_layers(First().vit, (1, 16, 16))]


def test_tokens_are_erased_and_attention_weights_are_refused(opened, tmp_path):
    g = torch.Generator().manual_seed(1)
    site = np.arange(60) % 3
    x = torch.rand(60, 1, 16, 16, generator=g) + torch.as_tensor(site, dtype=torch.float32)[:, None, None, None] / 2
    told = Told(np.arange(60) // 3 % 2, site.astype(str), np.arange(60).astype(str))
    batches = [{"image": x[:40]}, {"image": x[40:]}]
    weights = "vit.blocks.1.attn.drop_weights"
    readings = read_network(opened, batches, ["vit.norm", weights])
    assert readings.channels["vit.norm"] == 12
    with pytest.raises(ValueError, match="do not vary"):
        layer_eraser(readings, weights, told, np.arange(60))
    eraser = layer_eraser(readings, "vit.norm", told, np.arange(60))
    assert eraser.rank > 0
    after = read_network(opened, batches, ["vit.norm"], changes={"vit.norm": eraser})
    of_site = [
        [layers["vit.norm"][site == k, :12].mean(0) for k in range(3)] for layers in (readings.layers, after.layers)
    ]
    before, left = (np.ptp(means, axis=0).max() for means in of_site)
    assert left < before / 2
    options = {"adversary": None, "nonlinear_slopes": False, "intercept": False}
    net = ARMED(First().eval(), 3, (1, 16, 16), erasers=["vit.norm"], **options)  # the same, before it was exported
    label, cluster = torch.as_tensor(told.label), torch.as_tensor(site)
    fit_erasers(net, [{"image": x, "label": label, "cluster": cluster}], num_classes=2)
    with torch.no_grad():
        logits = net.eval()(x)
    np.testing.assert_allclose(after.score, logits[:, 1] - logits[:, 0], rtol=1e-3, atol=1e-4)
    write_erased(opened, "vit.norm", eraser, x[:2], tmp_path / "e.pt2")
    found = read_network(open_network(tmp_path / "e.pt2"), batches, ())
    np.testing.assert_allclose(found.score, after.score, rtol=1e-3, atol=1e-4)


def test_a_program_for_one_number_of_images_says_so(tmp_path):
    torch.export.save(torch.export.export(torch.nn.Flatten(), (torch.rand(2, 1, 4, 4),)), tmp_path / "two.pt2")
    with pytest.raises(ValueError, match="exported for batches of 2 alone"):
        open_network(tmp_path / "two.pt2")


def test_which_of_several_things_that_are_returned_is_read_is_said(tmp_path, opened):
    class Several(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Linear(256, 1)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.inner(x.flatten(1)), x

    batches = [{"image": torch.rand(4, 1, 16, 16)}]
    form = read_network(Several(), batches, ()).form
    assert form is not None and form.said() == "one output, of logits; the first of 2 things that the network returns"
    alone = read_network(opened, batches, ()).form
    assert alone is not None and "returns" not in alone.said()
