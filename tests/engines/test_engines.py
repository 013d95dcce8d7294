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


def _armed_trainer(network: ARMED, epochs: int = 2, optimizer=torch.optim.Adam, **kwargs) -> ARMEDTrainer:
    adversary, rest = _parts(network)
    options = {
        "adversary": network.adversary,
        "adversary_optimizer": optimizer(adversary, 0.02),
        "prepare_batch": PrepareBatchCluster(),
        **kwargs,
    }
    return ARMEDTrainer("cpu", epochs, _loader(), network, optimizer(rest, 0.02), _loss(), **options)


def _parts(network: ARMED) -> tuple[list, list]:
    """Parameters of the adversary, and all others."""
    adversary = list(network.adversary.parameters())
    return adversary, [p for n, p in network.named_parameters() if not n.startswith("adversary.")]


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
        strengths.append(float(network.adversary.reversal_strength))
        logged.append(loss_terms(engine.state.output))

    trainer.run()
    assert strengths[0] < strengths[3] < strengths[7] == 1.0
    assert set(logged[0]) == {"loss", "mixed", "fixed", "adversary", "kl"}
    assert logged[-1]["mixed"] < 0.6 * logged[0]["mixed"]
    assert _auroc(network, PrepareBatchCluster()) > 0.95


def test_alternating_updates_touch_their_own_part():
    """First the adversary moves and nothing else, then all else against the adversary that it has become."""
    set_determinism(0)
    network = _network()
    trainer = _armed_trainer(network, epochs=1, decollate=False)
    events, moved = [], {}
    last = {n: p.detach().clone() for n, p in network.named_parameters()}

    def look(event: str) -> None:
        events.append(event)
        now = {n: p.detach().clone() for n, p in network.named_parameters()}
        moved.setdefault(event, {n for n, p in now.items() if not torch.equal(p, last[n])})
        last.update(now)

    for event in ("FORWARD_COMPLETED", "LOSS_COMPLETED", "BACKWARD_COMPLETED", "MODEL_COMPLETED"):
        trainer.add_event_handler(IterationEvents[event], look, event)
    trainer.run()
    assert events[:4] == ["FORWARD_COMPLETED", "LOSS_COMPLETED", "BACKWARD_COMPLETED", "MODEL_COMPLETED"]
    first, second = moved["FORWARD_COMPLETED"], moved["MODEL_COMPLETED"]
    assert first and all(n.startswith("adversary.") for n in first)
    assert not moved["LOSS_COMPLETED"] | moved["BACKWARD_COMPLETED"]
    assert {n.split(".")[0] for n in second} == {"network", "random_slopes"}


def test_the_network_takes_its_step_against_the_adversary_as_it_has_become():
    """By hand: the adversary's step on the features, then one on Eq. 14 with its new weights, the same features."""
    network = _network(random_effects={"posterior_scale": 1e-12})
    network.set_reversal_strength(0.7)
    other = copy.deepcopy(network)
    trainer = _armed_trainer(network, epochs=1, epoch_length=1, optimizer=torch.optim.SGD, decollate=False)
    batch = next(iter(_loader()))
    trainer._iteration(trainer, batch)

    loss, target = _loss(), {"label": batch["label"], "cluster": batch["cluster"]}
    adversary, rest = _parts(other)
    steps = torch.optim.SGD(adversary, 0.02), torch.optim.SGD(rest, 0.02)
    features = [f.detach() for f in other(batch["image"], batch["cluster"], with_adversary=False)["features"]]
    loss.adversary_loss(other.adversary.logits(features), target["cluster"]).backward()
    steps[0].step()
    other.zero_grad()
    loss(other(batch["image"], batch["cluster"]), target).backward()
    steps[1].step()
    for (name, p), q in zip(network.named_parameters(), other.parameters()):
        torch.testing.assert_close(p, q, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"adversary_steps": 0}, "adversary_steps must be at least 1"),
        ({"accumulation_steps": 2}, "do not accumulate"),
        ({"adversary": None}, "but no adversary: pass adversary=network.adversary"),
        ({"adversary": None, "adversary_optimizer": None}, "parameters are in no optimizer: pass adversary="),
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
    named = {**next(iter(_loader())), "cluster": ["Basel", "Bern"] * 8}
    with pytest.raises(ValueError, match=r"'cluster' of a batch is no tensor but a list. Names .* by ClusterToIndexd"):
        PrepareBatchCluster()(named)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_mixed_precision_is_that_of_the_device(dtype):
    set_determinism(0)
    network = _network()
    options = {} if dtype is None else {"amp_kwargs": {"dtype": dtype}}
    trainer = _armed_trainer(network, epochs=30, decollate=False, amp=True, **options)
    logits, seen = [], []
    trainer.add_event_handler(
        IterationEvents.FORWARD_COMPLETED, lambda e: logits.append(e.state.output["pred"]["fixed"].dtype)
    )
    network.adversary.classifier.register_forward_hook(lambda _m, _x, out: seen.append(out.dtype))
    trainer.run()
    assert set(logits) == set(seen) == {dtype or torch.bfloat16}
    assert trainer.scaler.is_enabled() == (dtype == torch.float16)
    assert all(p.dtype == torch.float32 for p in network.parameters())
    assert _auroc(network, PrepareBatchCluster()) > 0.95


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
            adversary=network.adversary, adversary_optimizer=torch.optim.Adam(network.adversary.parameters(), 0.02),
            **common,
        )  # fmt: skip
    else:
        optimizer = torch.optim.Adam(network.parameters(), 0.02)
        trainer = SupervisedTrainer("cuda", 30, _loader(), network, optimizer, _loss(), **common)
    trainer.run()
    assert _auroc(network.cpu(), PrepareBatchCluster()) > 0.95
