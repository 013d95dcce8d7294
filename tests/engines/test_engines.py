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
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.handlers import ROCAUC, ParamSchedulerHandler, StatsHandler
from monai.utils import set_determinism

from monai_armed.engines import ARMEDTrainer, PrepareBatchCluster, PrepareBatchRandomCluster
from monai_armed.handlers import loss_terms
from monai_armed.losses import ARMEDLoss
from monai_armed.networks import ARMED, DFNN


def _data() -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 3, generator=generator)
    cluster = torch.arange(64) % 4
    label = (x[:, 0] + torch.tensor([2.0, -2, 1, -1])[cluster] > 0).long()
    return [{"image": x[i], "label": label[i], "cluster": cluster[i]} for i in range(64)]


def _loader() -> DataLoader:
    return DataLoader(Dataset(_data()), batch_size=16, shuffle=True)


def _network(**kwargs) -> ARMED:
    return ARMED(DFNN(3, hidden_channels=(16, 16)), 4, (3,), adversary="dense", **kwargs)


def _loss() -> ARMEDLoss:
    return ARMEDLoss(torch.nn.BCEWithLogitsLoss(), lambda_adversary=0.1, lambda_kl=1 / 64)


def _auroc(network: ARMED, prepare_batch) -> float:
    metric = ROCAUC(output_transform=lambda out: (out["pred"], out["label"]["label"].unsqueeze(1)))
    evaluator = SupervisedEvaluator(
        "cpu", _loader(), network, prepare_batch=prepare_batch, key_val_metric={"auroc": metric}, decollate=False
    )
    evaluator.run()
    return evaluator.state.metrics["auroc"]


@pytest.mark.parametrize("adversary", [True, False])
@pytest.mark.parametrize("decollate", [True, False])
def test_trains_under_the_stock_trainer(adversary, decollate):
    set_determinism(0)
    network = _network() if adversary else ARMED(DFNN(3, hidden_channels=(16, 16)), 4, (3,), adversary=None)
    trainer = SupervisedTrainer(
        "cpu", 30, _loader(), network, torch.optim.Adam(network.parameters(), 0.02), _loss(),
        prepare_batch=PrepareBatchCluster(), decollate=decollate,
    )  # fmt: skip
    trainer.run()
    assert _auroc(network, PrepareBatchCluster()) > 0.95
    # the fixed effects alone and clusters at random do worse: the clusters' intercepts were learned as such
    assert _auroc(network, PrepareBatchCluster(effects="fixed")) < 0.92
    assert _auroc(network, PrepareBatchRandomCluster(4)) < 0.9


def _armed_trainer(network: ARMED, epochs: int = 2, **kwargs) -> ARMEDTrainer:
    rest = [p for n, p in network.named_parameters() if not n.startswith("adversary.")]
    options = {
        "adversary_optimizer": torch.optim.Adam(network.adversary.parameters(), 0.02),
        "prepare_batch": PrepareBatchCluster(),
        **kwargs,
    }
    return ARMEDTrainer("cpu", epochs, _loader(), network, torch.optim.Adam(rest, 0.02), _loss(), **options)


def test_alternating_trainer_learns_and_logs_terms(capsys):
    set_determinism(0)
    network = _network()
    strengths, logged = [], []
    warm_up = ParamSchedulerHandler(
        network.set_reversal_strength,
        "linear",
        {"initial_value": 0.0, "step_constant": 0, "step_max_value": 8, "max_value": 1.0},
        event=IterationEvents.MODEL_COMPLETED,
    )
    trainer = _armed_trainer(network, epochs=30, adversary_steps=2, decollate=False, train_handlers=[warm_up])
    StatsHandler(output_transform=loss_terms, epoch_log=False, iteration_log=False).attach(trainer)

    @trainer.on(IterationEvents.MODEL_COMPLETED)
    def _(engine):
        strengths.append(float(network.reversal_strength))
        logged.append(loss_terms(engine.state.output))

    trainer.run()
    assert strengths[0] < strengths[3] < strengths[7] == 1.0
    assert set(logged[0]) == {"loss", "mixed", "fixed", "adversary", "kl"}
    assert logged[-1]["mixed"] < 0.6 * logged[0]["mixed"]
    assert _auroc(network, PrepareBatchCluster()) > 0.95


def test_alternating_updates_touch_their_own_part():
    set_determinism(0)
    network = _network()
    trainer = _armed_trainer(network, decollate=False)
    events = []
    start = {n: p.detach().clone() for n, p in network.named_parameters()}
    trainer._train_adversary(*_batch())
    moved = {n for n, p in network.named_parameters() if not torch.equal(p, start[n])}
    assert moved and all(n.startswith("adversary.") for n in moved)
    for event in IterationEvents:
        if event.name in ("FORWARD_COMPLETED", "LOSS_COMPLETED", "BACKWARD_COMPLETED", "MODEL_COMPLETED"):
            trainer.add_event_handler(event, lambda name: events.append(name), event.name)
    adversary = {n: p.detach().clone() for n, p in network.adversary.named_parameters()}
    trainer.adversary_optimizer = None
    trainer.run()
    assert events[:4] == ["FORWARD_COMPLETED", "LOSS_COMPLETED", "BACKWARD_COMPLETED", "MODEL_COMPLETED"]
    assert all(torch.equal(p, adversary[n]) for n, p in network.adversary.named_parameters())


def _batch():
    batch = next(iter(_loader()))
    return batch["image"], {"label": batch["label"], "cluster": batch["cluster"]}


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"adversary_steps": 0}, "adversary_steps must be at least 1"),
        ({"accumulation_steps": 2}, "do not accumulate"),
    ],
)
def test_alternating_trainer_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        _armed_trainer(_network(), **kwargs)


def test_alternating_trainer_shared_parameters_and_other_losses():
    network = _network()
    shared = torch.optim.Adam(network.parameters())
    with pytest.raises(ValueError, match="share parameters"):
        _armed_trainer(network, adversary_optimizer=shared)
    with pytest.raises(ValueError, match="must be an ARMEDLoss, got MSELoss"):
        ARMEDTrainer("cpu", 1, _loader(), network, shared, torch.nn.MSELoss())


def test_prepare_batch():
    image, target, args, kwargs = PrepareBatchCluster(effects="fixed")(next(iter(_loader())))
    assert image.shape == (16, 3) and args == () and kwargs["effects"] == "fixed"
    assert torch.equal(kwargs["cluster"], target["cluster"]) and target["cluster"].dtype == torch.long
    assert PrepareBatchCluster(pass_cluster=False)(next(iter(_loader())))[3] == {}
    drawn = PrepareBatchRandomCluster(4)(next(iter(_loader())))
    assert not torch.equal(drawn[3]["cluster"], drawn[1]["cluster"])
    with pytest.raises(ValueError, match="a batch has no 'site', its keys are"):
        PrepareBatchCluster(cluster_key="site")(next(iter(_loader())))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="mixed precision needs a CUDA device")
@pytest.mark.parametrize("alternating", [True, False])
def test_trains_with_amp_on_cuda(alternating):
    set_determinism(0)
    network = _network().cuda()
    common = {"prepare_batch": PrepareBatchCluster(), "decollate": False, "amp": True}
    if alternating:
        rest = [p for n, p in network.named_parameters() if not n.startswith("adversary.")]
        trainer = ARMEDTrainer(
            "cuda", 30, _loader(), network, torch.optim.Adam(rest, 0.02), _loss(),
            adversary_optimizer=torch.optim.Adam(network.adversary.parameters(), 0.02), **common,
        )  # fmt: skip
    else:
        optimizer = torch.optim.Adam(network.parameters(), 0.02)
        trainer = SupervisedTrainer("cuda", 30, _loader(), network, optimizer, _loss(), **common)
    trainer.run()
    assert _auroc(network.cpu(), PrepareBatchCluster()) > 0.95
