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

"""Networks, losses, trainers and handlers on a device that is not the CPU: the emulated one, so that CI has it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from emulated_device import DeviceTensor, emulated_device
from ignite.engine import Engine
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer

from monai_armed.engines import (
    AdversaryMonitor,
    ARMEDTrainer,
    FeatureMemory,
    MLDGObjective,
    MLDGTrainer,
    PrepareBatchCluster,
    PrepareBatchRandomCluster,
)
from monai_armed.handlers import ClusterErasure, PredictionWriter, RandomEffectsWriter, ReversalWarmUp
from monai_armed.losses import AECLoss, ARMEDLoss, ClusterCrossEntropyLoss, GaussianLikelihoodLoss
from monai_armed.metrics.audit import collect_features
from monai_armed.metrics.mixed_model import VarCorr, fixef, ranef
from monai_armed.networks import ARMED, CNN, DFNN, ClusterInput, ZPredictor, adapt
from monai_armed.networks.layers import RandomEffects
from monai_armed.networks.nets import AEC, ARMEDAEC

IMAGE, CLUSTERS = (1, 16, 16), 3


@pytest.fixture
def device() -> Iterator[torch.device]:
    with emulated_device() as device:
        yield device


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: x + torch.randn(4, 3), "expected all tensors to be on the same device"),
        (lambda x: torch.cat([x, torch.zeros(1, 3)]), "expected all tensors to be on the same device"),
        (lambda x: torch.randn(4, 3)[(x[:, 0] > 0).long()], "expected all tensors to be on the same device"),
        (lambda x: torch.nn.Linear(3, 2)(x), "expected all tensors to be on the same device"),
        (lambda x: x[(x[:, 0] > 9).long() + 4], "device-side assert"),
        (lambda x: x.numpy(), "can't convert cuda:0 device type tensor to numpy"),
        (lambda x: x.double(), "no double precision"),
        (lambda x: torch.randn(2, generator=torch.Generator(), device=x.device), "expected a 'cuda' generator"),
    ],
)
def test_the_emulation_refuses_what_a_gpu_refuses(device, call, message):
    x = torch.randn(4, 3).to(device)
    with pytest.raises((RuntimeError, TypeError), match=message):
        call(x)


def test_the_emulation_computes(device):
    torch.manual_seed(0)
    net, x = CNN(IMAGE, channels=(4,), dense_channels=4), torch.randn(2, *IMAGE)
    right = net.eval()(x)
    moved = net.to(device)
    out = moved(x.to(device))
    assert out.device == device and isinstance(next(net.parameters()), DeviceTensor)
    torch.testing.assert_close(out.cpu(), right)
    out.sum().backward()
    assert next(moved.parameters()).grad.device == device


def _loader(shape: tuple[int, ...] = IMAGE) -> DataLoader:
    x = torch.randn(12, *shape, generator=torch.Generator().manual_seed(0))
    return DataLoader(
        Dataset([{"image": x[i], "label": i % 2, "cluster": i % CLUSTERS} for i in range(12)]), batch_size=6
    )


def _network(kind: str, device: torch.device) -> ARMED | ARMEDAEC:
    """From parts that are on the device already, or moved there as a whole."""
    torch.manual_seed(0)
    if kind.startswith("autoencoder"):
        small = {"channels": (4, 4), "latent_channels": 8, "classifier_channels": 4}
        parts = [AEC(IMAGE, **small), AEC(IMAGE, norm=("recon", {"num_clusters": CLUSTERS}), **small)]
        fixed, random, classifier = (part.to(device) for part in (*parts, CNN(IMAGE, CLUSTERS, (4,), 4)))
        options = {"confusion": True} if kind.endswith("whitened") else {}
        return ARMEDAEC(fixed, CLUSTERS, IMAGE, random, None, kind.split()[1], image_classifier=classifier, **options)
    network = CNN(IMAGE, channels=(4, 4), dense_channels=4)
    if kind == "pooled":
        return ARMED(network.to(device), CLUSTERS, IMAGE)
    if kind == "conv":
        return ARMED(network, CLUSTERS, IMAGE, adversary="conv", multiplicative=True).to(device)
    effects = {"covariance": "full", "learn_prior": True, "sampling": "sample"}
    return ARMED(network.to(device), CLUSTERS, IMAGE, adversary=kind, num_classes=2, random_effects=effects)


NETWORKS = ("pooled", "conv", "whitened", "dense", "autoencoder pooled", "autoencoder whitened")


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("alternating", [True, False])
def test_training(device, kind, alternating, tmp_path):
    net = _network(kind, device)
    adversary = list(net.adversary.parameters())
    rest = [p for n, p in net.named_parameters() if not n.startswith("adversary.")]
    loss = AECLoss() if kind.startswith("autoencoder") else ARMEDLoss(torch.nn.BCEWithLogitsLoss())
    handlers = [ReversalWarmUp(net), AdversaryMonitor(), RandomEffectsWriter(tmp_path, net)]
    common = {"prepare_batch": PrepareBatchCluster(), "decollate": False, "train_handlers": handlers}
    if alternating:
        memory = FeatureMemory(20, 8)
        trainer = ARMEDTrainer(
            device, 2, _loader(), net, torch.optim.Adam(rest, 1e-3), loss, adversary=net.adversary,
            adversary_optimizer=torch.optim.Adam(adversary, 1e-3), adversary_memory=memory, **common,
        )  # fmt: skip
        memory.load_state_dict(_saved_memory(net))  # as resumed: on the CPU
    else:
        trainer = SupervisedTrainer(device, 2, _loader(), net, torch.optim.Adam(net.parameters(), 1e-3), loss, **common)
    trainer.run()
    assert trainer.state.output["pred"]["fixed"].device == device


def _saved_memory(net: ARMED | ARMEDAEC) -> dict:
    batch = next(iter(_loader()))
    options = {"cluster": batch["cluster"].to("cuda"), "with_adversary": False}
    features = net.adversary.pool(net(batch["image"].to("cuda"), **options)["features"])
    return {
        "features": [f.detach().cpu() for f in features],
        "targets": {name: batch[name].cpu() for name in ("cluster", "label")},
    }


@pytest.mark.parametrize("kind", NETWORKS)
def test_prediction(device, kind, tmp_path):
    net = _network(kind, device).eval()
    batch = next(iter(_loader()))
    x = batch["image"].to(device)
    cluster = torch.tensor([0, 1, 2, -1, 0, 1]).to(device)
    z_predictor = ZPredictor(CNN(IMAGE, CLUSTERS, (4,), 4), CLUSTERS).to(device)
    z_predictor.calibrate(z_predictor.logits(x), cluster)
    net.attach_z_predictor(z_predictor, max_entropy=0.9)
    assert net(x, cluster).device == net(x).device == device
    if isinstance(net, ARMEDAEC):
        assert net.reconstruct(x, cluster, as_cluster=cluster.flip(0)).device == device
        ClusterErasure(net, _loader(), 1)(_at_epoch(1))
        return
    assert net.sample_logits(x, cluster, 3).device == device
    writer = PredictionWriter(tmp_path, net, list("abc"), "cluster", num_draws=4)
    options = {"decollate": False, "prepare_batch": PrepareBatchRandomCluster(CLUSTERS), "val_handlers": [writer]}
    SupervisedEvaluator(device, _loader(), net, **options).run()
    adapted = adapt(net, x, torch.ones(6).to(device), torch.nn.BCEWithLogitsLoss(), steps=2)
    assert adapted(x, torch.full((6,), 3).to(device)).device == adapt(net, x)(x).device == device
    collect_features(net, _loader(), device=device)
    for read in (ranef, VarCorr, fixef):
        assert len(read(net))


def _at_epoch(epoch: int) -> Engine:
    engine = Engine(lambda e, b: None)
    engine.state.epoch = epoch
    return engine


def test_mldg_and_the_other_networks_and_losses(device):
    torch.manual_seed(0)
    net = ClusterInput(DFNN(4).to(device), CLUSTERS, "hidden.0.0")
    x, cluster = torch.randn(6, 4).to(device), (torch.arange(6) % CLUSTERS).to(device)
    assert net(x, cluster).device == net(x).device == device
    likelihood = GaussianLikelihoodLoss().to(device)
    assert likelihood(net(x, cluster), torch.zeros(6).to(device)).device == device
    conventional = DFNN(4).to(device)
    objective = MLDGObjective(ARMEDLoss(torch.nn.BCEWithLogitsLoss()), CLUSTERS, num_meta_test=1)
    MLDGTrainer(
        device, 1, _loader((4,)), conventional, torch.optim.SGD(conventional.parameters(), 0.1), None,
        objective=objective, prepare_batch=PrepareBatchCluster(pass_cluster=False), decollate=False,
    ).run()  # fmt: skip


@pytest.mark.parametrize(
    "call",
    [
        lambda x, bad: ARMED(DFNN(4), CLUSTERS, (4,)).to(x.device)(x, bad),
        lambda x, bad: ClusterInput(DFNN(4), CLUSTERS, "hidden.0.0").to(x.device)(x, bad),
        lambda x, bad: RandomEffects(CLUSTERS, 2).to(x.device)(bad),
        lambda x, bad: ClusterCrossEntropyLoss()(x[:, :CLUSTERS], bad),
        lambda x, bad: ClusterCrossEntropyLoss("binary")(x[:, :CLUSTERS], bad),
        lambda x, bad: ClusterCrossEntropyLoss()(x[:, :, None].expand(6, 4, CLUSTERS), bad * 0, bad),
    ],
)
def test_an_index_out_of_range_is_a_sentence_and_not_the_end_of_the_process(device, call):
    with pytest.raises(ValueError, match="out of range"):
        call(torch.randn(6, 4).to(device), torch.tensor([0, 1, 2, 0, 7, 1]).to(device))
