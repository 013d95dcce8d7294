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

"""Channels are the last dimension of tokens, and the second of maps and of what a 1-D convolution gives."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import DenseNet, SwinUNETR, UNet, ViT
from torch import nn

from monai_armed.losses import CORALLoss
from monai_armed.metrics.audit import collect_features
from monai_armed.networks import ARMED, fit_random_effects
from monai_armed.networks.erasure import ClusterEraser, fit_erasers
from monai_armed.networks.layers.channel_dims import channel_dims, sequence_dim
from monai_armed.networks.layers.dry_run import dry_run
from monai_armed.networks.training_distance import TrainingDistance, fit_training_distance


class Recurrent(nn.Module):
    """Of (B, T, 5); `last` reads the last state, which is another output than the sequence."""

    def __init__(self, last: bool = False) -> None:
        super().__init__()
        self.lstm, self.head, self.last = nn.LSTM(5, 8, batch_first=True), nn.Linear(8, 2), last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sequence, (state, _) = self.lstm(x)
        return self.head(state[-1] if self.last else sequence.mean(1))


class Instances(nn.Module):
    """Joins four instances of a sample, as multiple instance learning does."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.join, self.head = nn.Linear(6, 8), nn.Identity(), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self.features(x.flatten(0, 1))
        return self.head(self.join(rows.unflatten(0, (-1, 4)).mean(1)))


class Unknown(nn.Module):
    """Works on a sequence by functions alone."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


def vit() -> ViT:
    torch.manual_seed(0)
    return ViT(1, (32, 32), (8, 8), 48, 64, 2, 4, classification=True, spatial_dims=2, post_activation="")


def ecg() -> nn.Module:
    torch.manual_seed(0)
    before = (nn.Conv1d(2, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 8, 3), nn.GELU())
    return nn.Sequential(*before, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 2))


NETWORKS = {
    "transformer": (vit, (1, 32, 32), {"norm": 2, "blocks.0": 2, "blocks.1": 2, "patch_embedding": 2}),
    "ECG": (ecg, (2, 64), {"0": 1, "1": 1, "2": 1, "4": 1}),
    "dense 1-D": (lambda: DenseNet(1, 2, 1, 8, 4, (2, 2)), (2, 64), {"features": 1, "features.denseblock1": 1}),
    "3-D": (lambda: UNet(3, 1, 2, (8, 16), (2,), num_res_units=1), (1, 8, 8, 8), {"model.0": 1, "model.1": 1}),
    # where a map has as many channels as pixels a side
    "square": (lambda: UNet(2, 1, 2, (16, 32), (2,), num_res_units=2), (1, 32, 32), {"model.0": 1, "model.0.conv": 1}),
    "Swin": (
        lambda: SwinUNETR(1, 2, feature_size=12, spatial_dims=2),
        (1, 64, 64),
        {"swinViT.layers1.0.blocks.0": 3, "swinViT.layers1.0.blocks.1.norm1": 3, "swinViT.layers1.0": 1, "encoder1": 1},
    ),
    "recurrent": (Recurrent, (12, 5), {"lstm": 2}),
    "not told": (lambda: nn.Sequential(Unknown(), nn.Flatten(), nn.Linear(96, 2)), (12, 5), {"0": None}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_channels_are_found(name):
    make, shape, wanted = NETWORKS[name]
    network = make()
    dry = dry_run(network, shape)
    given = [(layer, dry.record.outputs[layer]) for layer in wanted]
    assert dict(zip(wanted, channel_dims(network, dry, given))) == wanted


def _batches(shape: tuple[int, ...], count: int = 120) -> list[dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    cluster = torch.arange(count) % 3
    x = torch.randn(count, *shape)
    x[..., : shape[-1] // 2] += cluster.view(-1, *(1,) * len(shape))
    return [{"image": x, "label": torch.arange(count)[:, None] // 3 % 2, "cluster": cluster}]


def _told(network: ARMED, batch: dict[str, torch.Tensor]) -> float:
    """Share of the logits' variance that lies between the clusters of a class."""
    logits = network.eval()(batch["image"], effects="fixed").detach()
    within = torch.zeros(())
    total = torch.zeros(())
    for label in (0, 1):
        own = logits[batch["label"][:, 0] == label]
        cluster = batch["cluster"][batch["label"][:, 0] == label]
        rest = torch.cat([own[cluster == c] - own[cluster == c].mean(0) for c in range(3)])
        within, total = within + rest.square().sum(), total + (own - own.mean(0)).square().sum()
    return float(1 - within / total)


@pytest.mark.parametrize("name", ["transformer", "recurrent", "ECG"])
@pytest.mark.parametrize("given", ["names", "modules"])
def test_what_is_erased_is_gone_from_the_logits(name, given):
    layer, size = {"transformer": ("norm", 48), "recurrent": ("lstm", 8), "ECG": ("4", 8)}[name]
    make, shape, _ = NETWORKS[name]
    erasers = [layer] if given == "names" else {layer: ClusterEraser(size)}
    torch.manual_seed(0)
    net = ARMED(make(), 3, shape, adversary=None, erasers=erasers)
    batches = _batches(shape)
    before = _told(net, batches[0])
    # what follows is linear, so that all that tells a class's clusters apart on average is gone, and not nearly
    assert fit_erasers(net, batches, num_classes=2, above_noise=False)[layer] == 4
    assert _told(net, batches[0]) < 1e-4 * before
    assert net.random_effects.num_effects == 2 * size + 2
    # the random effects have what the fixed ones have given up: a latent that differs between samples
    latent = net.fixed_and_latent(batches[0]["image"])[1]
    assert latent.shape[:2] == (120, size) and latent.flatten(2).mean(2).std(0).mean() > 0.01
    assert fit_random_effects(net, batches, nn.CrossEntropyLoss(), steps=3) > 0  # labels (N, 1), as MONAI has them


def test_the_class_token_alone_counts_where_it_alone_goes_on():
    net = ARMED(vit(), 3, (1, 32, 32), adversary=None, erasers=["blocks.0", "blocks.1", "norm"])
    assert [net.erased_places[name].tokens for name in net.erased_layers] == [None, (0,), (0,)]
    x = torch.rand(2, 1, 32, 32)
    kept = []
    with net.network.norm.register_forward_hook(lambda _module, _args, out: kept.append(out)):
        latent = net.eval().fixed_and_latent(x)[1]
    torch.testing.assert_close(latent[:, :, 0], kept[0][:, 0])


def test_what_cannot_be_told_must_be_said():
    make, shape, _ = NETWORKS["not told"]
    with pytest.raises(ValueError, match=r"which of these are its channels cannot be told.*channel_dim=1"):
        ARMED(make(), 3, shape, adversary=None, erasers=["0"])
    net = ARMED(make(), 3, shape, adversary=None, erasers={"0": ClusterEraser(8, channel_dim=-1)}).eval()
    assert net(torch.randn(2, *shape)).shape == (2, 2)
    with pytest.raises(ValueError, match="channel_dim must not be 0"):
        ClusterEraser(8, channel_dim=0)


def test_erasing_what_goes_no_further_is_refused():
    with pytest.raises(ValueError, match="logits do not depend on what layer 'lstm' gives"):
        ARMED(Recurrent(last=True), 3, (12, 5), adversary=None, erasers=["lstm"])


@pytest.mark.parametrize("options", [{"erasers": ["features"]}, {"feature_layers": ["features"]}])
def test_layers_that_run_once_an_instance_are_refused(options):
    with pytest.raises(ValueError, match=r"'features' gives \(8, 8\) for 2 samples: it runs once for each instance"):
        ARMED(Instances(), 3, (4, 6), **options)
    assert ARMED(Instances(), 3, (4, 6), erasers=["join"], adversary=None).erased_layers == ("join",)


def test_logits_of_every_token_are_refused():
    with pytest.raises(ValueError, match="have the classes in dimension 1"):
        ARMED(nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 2)), 3, (12, 5), adversary=None)


@pytest.mark.parametrize("name", ["recurrent", "Swin"])
def test_adversary_and_audit_see_every_channel(name):
    make, shape, _ = NETWORKS[name]
    layer, size = {"recurrent": ("lstm", 8), "Swin": ("swinViT.layers1.0.blocks.0", 12)}[name]
    net = ARMED(make(), 3, shape, feature_layers=[layer])
    features = net.train()(torch.randn(2, *shape), torch.tensor([0, 1]), with_adversary=False)["features"]
    assert features[0].shape[:2] == (2, size) and net.adversary.classifier.norm.num_features == 2 * size
    cluster, label = torch.tensor([0, 1, 2, 0]), torch.zeros(4)
    found = collect_features(net, [{"image": torch.randn(4, *shape), "label": label, "cluster": cluster}])
    assert found.layers[layer].shape == (4, 2 * size)


def test_the_distance_to_the_training_data_is_that_of_channels():
    network = vit().eval()
    batches = [{"image": torch.rand(30, 1, 32, 32)} for _ in range(2)]
    distance = fit_training_distance(network, batches, batches, layers=["norm"])
    assert len(distance.layers["norm"].mean) == 2 * 48
    again = TrainingDistance.from_state_dict(distance.state_dict())
    torch.testing.assert_close(again(network, batches[0]["image"]), distance(network, batches[0]["image"]))
    plain = fit_training_distance(ecg().eval(), [{"image": torch.rand(30, 2, 64)}], [{"image": torch.rand(9, 2, 64)}])
    assert not [name for name in plain.state_dict() if name.endswith("channel_dim")]  # files are as they were


def test_coral_compares_channels_of_tokens():
    network = vit()
    assert [sequence_dim(network.get_submodule(name)) for name in ("norm", "blocks.1")] == [2, 2]
    assert sequence_dim(ecg()[0]) == 1
    loss = CORALLoss(nn.CrossEntropyLoss(), network, "norm", 2)
    cluster = torch.arange(6) % 2
    logits = network(torch.rand(6, 1, 32, 32) * (1 + cluster.view(-1, 1, 1, 1)))[0]
    kept = loss._features
    assert kept.shape == (6, 48, 17)
    assert loss.terms(logits, {"label": cluster, "cluster": cluster})["coral"] > 0
