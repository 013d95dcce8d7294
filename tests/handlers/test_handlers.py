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

import logging
import os
import subprocess
import sys

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import ROCAUC, ValidationHandler
from monai.transforms import RandGaussianNoised
from monai.utils import set_determinism

from monai_armed.engines import PrepareBatchCluster
from monai_armed.handlers import (
    EarlyStop,
    EpochSeed,
    TrainingCheckpoint,
    load_weights,
)
from monai_armed.losses import ARMEDLoss, GaussianLikelihoodLoss
from monai_armed.networks import ARMED, DFNN
from monai_armed.networks.nets import ZPredictor

EPOCHS = 5


def _training(folder, resume=False, epochs=EPOCHS, patience=100, hidden=8, fingerprint=None):
    """A training with everything random in it: start, shuffles, augmentation, dropout, random effects."""
    set_determinism(1)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=generator)
    data = [{"image": x[i], "label": int(x[i, 0] > 0), "cluster": i % 4} for i in range(40)]
    noise = RandGaussianNoised("image", prob=0.5)
    loader = DataLoader(Dataset(data, transform=noise), batch_size=8, shuffle=True)
    network = ARMED(DFNN(3, hidden_channels=(hidden,), dropout=0.3), 4, (3,))
    optimizer = torch.optim.NAdam(network.parameters(), 0.01)
    metric = ROCAUC(output_transform=lambda out: (out["pred"], out["label"]["label"].unsqueeze(1)))
    validator = SupervisedEvaluator(
        "cpu", loader, network, prepare_batch=PrepareBatchCluster(), key_val_metric={"auroc": metric},
        decollate=False,
    )  # fmt: skip
    stop = EarlyStop(validator, patience)
    checkpoint = TrainingCheckpoint(folder, {"early_stop": stop}, validator, resume, fingerprint)
    trainer = SupervisedTrainer(
        "cpu", epochs, loader, network, optimizer, ARMEDLoss(torch.nn.BCEWithLogitsLoss()),
        prepare_batch=PrepareBatchCluster(), decollate=False,
        train_handlers=[EpochSeed(7), ValidationHandler(1, validator), stop, checkpoint],
    )  # fmt: skip
    return trainer, checkpoint


def _same(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


class Killed(Exception):
    pass


@pytest.mark.parametrize("iteration", [3, 11, 20])
def test_resumed_training_equals_uninterrupted(tmp_path, iteration):
    whole, checkpoint = _training(tmp_path / "whole")
    whole.run()
    wanted = torch.load(checkpoint.path, weights_only=True)

    broken, checkpoint = _training(tmp_path / "broken")

    @broken.on(Events.ITERATION_COMPLETED(once=iteration))
    def _(_engine):
        raise Killed

    with pytest.raises(Killed):
        broken.run()
    resumed, checkpoint = _training(tmp_path / "broken", resume=True)
    resumed.run()
    assert _same(torch.load(checkpoint.path, weights_only=True), wanted)  # bit for bit
    best = torch.load(tmp_path / "whole" / "model.pt", weights_only=True)
    assert _same(torch.load(checkpoint.model_path, weights_only=True), best)


def test_a_residual_that_the_loss_has_learned_is_resumed(tmp_path):
    def training(resume=False):
        trainer, _ = _training(tmp_path, resume, epochs=4 if resume else 2)
        trainer.loss_function = ARMEDLoss(GaussianLikelihoodLoss())
        trainer.optimizer.add_param_group({"params": list(trainer.loss_function.parameters())})
        return trainer

    first, second = training(), training(resume=True)
    first.run()
    learned = float(first.loss_function.loss.scale.detach())
    found = []
    second.add_event_handler(
        Events.STARTED, lambda _: found.append(float(second.loss_function.loss.scale.detach()))
    )  # after that of the checkpoint
    second.run()
    assert found == [learned] and abs(learned - 1) > 1e-3


def test_finished_training_is_not_continued(tmp_path):
    trainer, checkpoint = _training(tmp_path, patience=1, epochs=50)
    trainer.run()
    stopped = trainer.state.epoch
    assert stopped < 50
    before = torch.load(checkpoint.path, weights_only=True)
    again, _ = _training(tmp_path, patience=1, epochs=50, resume=True)
    again.run()
    assert again.state.epoch == stopped and _same(torch.load(checkpoint.path, weights_only=True), before)


def test_best_weights_are_those_of_the_best_epoch(tmp_path):
    trainer, checkpoint = _training(tmp_path)
    states = {}
    trainer.add_event_handler(
        Events.EPOCH_COMPLETED,
        lambda e: states.update({e.state.epoch: {k: v.clone() for k, v in trainer.network.state_dict().items()}}),
    )
    trainer.run()
    best = checkpoint.validator.state.best_metric_epoch
    assert _same(dict(torch.load(checkpoint.model_path, weights_only=True)), states[best])


def test_load_weights(tmp_path):
    trainer, checkpoint = _training(tmp_path, epochs=1)
    trainer.run()
    other = ARMED(DFNN(3, hidden_channels=(8,), dropout=0.3), 4, (3,))
    load_weights(other, checkpoint.model_path)
    with pytest.raises(ValueError, match=r"is of another shape: size mismatch for network.hidden.0.0.weight: .*8, 3"):
        load_weights(ARMED(DFNN(3, hidden_channels=(6,)), 4, (3,)), checkpoint.model_path)
    with pytest.raises(ValueError, match="is of another network: Unexpected key"):
        load_weights(ARMED(DFNN(3, hidden_channels=(8,)), 4, (3,), adversary=None), checkpoint.model_path)
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        load_weights(other, tmp_path / "none.pt")
    state = torch.load(checkpoint.model_path, weights_only=True)
    name = next(iter(state))
    torch.save({**state, name: torch.full_like(state[name], torch.nan)}, tmp_path / "nan.pt")
    with pytest.raises(ValueError, match=rf"nan\.pt holds NaN or infinite weights in {name}"):
        load_weights(other, tmp_path / "nan.pt")
    for none in (list(state.values()), {"epoch": 3}):
        torch.save(none, tmp_path / "list.pt")
        with pytest.raises(ValueError, match=r"list\.pt is no state dict, weights by name"):
            load_weights(other, tmp_path / "list.pt")
    torch.save({"net": state, "optimizer": {}}, tmp_path / "saver.pt")  # as MONAI's CheckpointSaver does
    with pytest.raises(ValueError, match=r"saver\.pt .* \(it holds 'net', 'optimizer'\)"):
        load_weights(other, tmp_path / "saver.pt")
    inferring = ARMED(DFNN(3, hidden_channels=(8,), dropout=0.3), 4, (3,)).attach_z_predictor(ZPredictor(DFNN(3, 4), 4))
    torch.save(inferring.state_dict(), tmp_path / "inferring.pt")
    with pytest.raises(ValueError, match="attach its Z-predictor first"):
        load_weights(other, tmp_path / "inferring.pt")
    torch.save(other, tmp_path / "whole.pt")
    with pytest.raises(ValueError, match=r"whole\.pt cannot be read .* save network\.state_dict"):
        load_weights(other, tmp_path / "whole.pt")
    checkpoint.model_path.write_bytes(checkpoint.model_path.read_bytes()[:100])
    with pytest.raises(ValueError, match="it is damaged"):
        load_weights(other, checkpoint.model_path)


def test_resume_without_a_checkpoint_says_that_it_starts_anew(tmp_path, caplog):
    _training(tmp_path, epochs=1, resume=True)[0].run()
    said = [r for r in caplog.records if "no checkpoint" in r.message and "starts anew" in r.message]
    assert len(said) == 1 and said[0].levelno >= logging.WARNING  # the bundles show warnings of the trainers, no less
    caplog.clear()
    _training(tmp_path, epochs=2, resume=True)[0].run()
    assert not [r for r in caplog.records if "starts anew" in r.message]


def test_resume_with_another_number_of_epochs_says_so(tmp_path, caplog):
    _training(tmp_path, epochs=1)[0].run()
    _training(tmp_path, epochs=1, resume=True)[0].run()
    assert "planned" not in caplog.text
    _training(tmp_path, epochs=2, resume=True)[0].run()
    assert "the training was planned for 1 epochs, now for 2" in caplog.text


def test_resume_with_another_network_says_so(tmp_path):
    trainer, _ = _training(tmp_path, epochs=1)
    trainer.run()
    with pytest.raises(ValueError, match="is of another shape"):
        _training(tmp_path, hidden=6, resume=True)[0].run()


def test_resume_of_another_training_is_refused_and_names_what_differs(tmp_path):
    given = {"learning_rate": "0.01", "batch_size": "8", "the data's study": '"one"'}
    _training(tmp_path, epochs=1, fingerprint=given)[0].run()
    kept = (tmp_path / "checkpoint.pt").read_bytes()
    other = {**given, "the data's study": '"two"', "loss#lambda_kl": "1"}
    with pytest.raises(
        ValueError, match=r"differs in the data's study \(\"one\", now \"two\"\), loss#lambda_kl \(not set"
    ):
        _training(tmp_path, epochs=2, resume=True, fingerprint=other)[0].run()
    assert (tmp_path / "checkpoint.pt").read_bytes() == kept
    _training(tmp_path, epochs=2, resume=True, fingerprint=given)[0].run()
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["progress"]["epoch"] == 2


def test_resume_of_a_training_that_nobody_knows_is_refused(tmp_path):
    _training(tmp_path, epochs=1)[0].run()
    with pytest.raises(ValueError, match="does not say which data and settings it is of: train anew"):
        _training(tmp_path, epochs=2, resume=True, fingerprint={"seed": "0"})[0].run()


def test_a_diverged_network_ends_training_and_the_last_good_one_is_kept(tmp_path):
    trainer, checkpoint = _training(tmp_path)

    @trainer.on(Events.ITERATION_COMPLETED)
    def _(engine):
        if engine.state.iteration == 3 * engine.state.epoch_length:  # after the last loss of epoch 3
            next(trainer.network.parameters()).data.fill_(float("nan"))

    with pytest.raises(ValueError, match=r"training has diverged: .* in epoch 3; .* kept .* lower learning_rate"):
        trainer.run()
    assert torch.load(checkpoint.path, weights_only=True)["progress"]["epoch"] == 2
    trainer, _ = _training(tmp_path / "loss")
    trainer.optimizer.param_groups[0]["lr"] = float("inf")
    with pytest.raises(ValueError, match=r"the loss is nan .*: lower the learning rate"):
        trainer.run()
    assert all(value.isfinite().all() for value in torch.load(checkpoint.model_path, weights_only=True).values())


def test_what_an_earlier_training_left_is_cleared(tmp_path):
    trainer, checkpoint = _training(tmp_path, epochs=1)
    trainer.run()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / f".checkpoint.pt.{gone.pid}.part").touch()
    (tmp_path / f".checkpoint.pt.{os.getpid()}.part").touch()  # of a process that lives
    checkpoint.clear()
    assert [path.name for path in tmp_path.iterdir()] == [f".checkpoint.pt.{os.getpid()}.part"]
    checkpoint.clear()  # there need be nothing


def test_epoch_seed_depends_on_seed_and_epoch():
    def draws(seed):
        found = []
        engine = Engine(lambda e, b: found.append(torch.rand(()).item()))
        EpochSeed(seed).attach(engine)
        engine.run([0], max_epochs=3)
        return found

    assert draws(0) == draws(0) and len({*draws(0), *draws(1)}) == 6
    with pytest.raises(ValueError, match="must not be negative"):
        EpochSeed(-1)
