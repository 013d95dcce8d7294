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

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.utils import set_determinism

from monai_armed.bundle import Training, ZPredictorTraining, read_record, run_lock, write_model
from monai_armed.bundle.model_file import read_distance
from monai_armed.engines import PrepareBatchCluster
from monai_armed.handlers import EpochSeed, TrainingCheckpoint
from monai_armed.losses import ARMEDLoss
from monai_armed.networks import ARMED, DFNN
from monai_armed.networks.nets import ZPredictor


def training(
    folder: Path, network=None, resume=False, setting="1", start_from=None, writer=None, held_out=24, **loading
) -> Training:
    set_determinism(1)
    x = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
    data = [{"image": x[i], "label": float(i % 2), "cluster": i % 3} for i in range(24)]
    loader = DataLoader(Dataset(data), shuffle=True, **{"batch_size": 8, **loading})
    network = ARMED(DFNN(3), 3, (3,)) if network is None else network
    checkpoint = TrainingCheckpoint(folder / "network", resume=resume)
    takes = isinstance(network, ARMED)
    trainer = SupervisedTrainer(
        "cpu", 2, loader, network, torch.optim.Adam(network.parameters()), ARMEDLoss(torch.nn.BCEWithLogitsLoss()),
        prepare_batch=PrepareBatchCluster(pass_cluster=takes), train_handlers=[EpochSeed(3), checkpoint],
        decollate=False,
    )  # fmt: skip
    guess = ZPredictor(DFNN(3, 3), 3)
    z = ZPredictorTraining(guess, guess, trainer, checkpoint, loader, max_epochs=1)
    names = {"clusters": ["a", "b", "c"]}
    record = {**names, "provenance": names, "features": None, "fingerprint": {"setting": setting}}
    return Training(
        trainer, network, checkpoint, record, folder, z, start_from, writer, distance_data=(data, data[:held_out])
    )


def load(path: Path):
    return torch.load(path, weights_only=True)


def test_the_model_is_the_network_with_its_calibrated_z_predictor_and_its_record(tmp_path, capsys):
    seen = []
    run = training(tmp_path, writer=lambda engine: seen.append(engine))
    run.run()
    assert read_record(run.model_path)["clusters"] == ["a", "b", "c"] and seen == [run.trainer]
    printed = capsys.readouterr().out
    assert "Z-predictor on 24 held-out samples of 3 seen clusters" in printed and str(run.model_path) in printed
    state, kept = load(run.model_path), load(tmp_path / "network" / "model.pt")
    assert all(torch.equal(state[name], value) for name, value in kept.items())
    assert float(state["clusters.z_predictor.temperature"]) > 1  # clusters at random: the guess is toned down


def test_the_model_knows_how_far_a_sample_is_from_its_training_data(tmp_path):
    run = training(tmp_path)
    run.run()
    distance, x = read_distance(run.model_path), torch.tensor([[0.1, 0.0, -0.1], [30.0, 0.0, 0.0]])
    assert (distance(run.network, x) > distance.threshold).tolist() == [False, True]
    training(tmp_path / "few", held_out=1).run()
    assert read_distance(tmp_path / "few" / "model.pt") is None


def test_a_model_that_was_trained_without_a_distance_gets_one_and_stays_as_it_is(tmp_path):
    run = training(tmp_path)
    run.run()
    state, record = load(run.model_path), read_record(run.model_path)
    old = write_model(state, record, tmp_path / "old.pt")
    other = training(tmp_path / "other")  # its network has other weights
    other.add_distance(old)
    assert old.read_bytes() == run.model_path.read_bytes()
    with pytest.raises(ValueError, match="there are no validation samples"):
        training(tmp_path / "other", held_out=0).add_distance(old)
    other.record = {**record, "provenance": {"clusters": ["a", "b", "d"]}}
    with pytest.raises(ValueError, match="was trained on other data than these: give the data and seeds of its own"):
        other.add_distance(old)


def test_samples_that_do_not_fill_a_batch(tmp_path):
    run = training(tmp_path, batch_size=25, drop_last=True)
    with pytest.raises(ValueError, match="do not fill a single batch: give a smaller batch_size"):
        run.run()


def test_a_single_cluster_is_refused(tmp_path):
    run = training(tmp_path)
    run.record = {**run.record, "clusters": ["a"]}
    with pytest.raises(ValueError, match="'a' is the only seen cluster of the training data; effects of the cluster"):
        run.run()


def test_a_network_that_takes_no_cluster_has_no_z_predictor(tmp_path):
    run = training(tmp_path, DFNN(3))
    run.run()
    assert not [name for name in load(run.model_path) if name.startswith("z_predictor")]
    assert not (tmp_path / "z_predictor").exists()


def interrupted(run: Training, engine, epoch: int) -> None:
    def stop(_engine):
        raise KeyboardInterrupt

    engine.add_event_handler(Events.EPOCH_STARTED(once=epoch), stop)
    with pytest.raises(KeyboardInterrupt):
        run.run()


@pytest.mark.parametrize("part", ["network", "z_predictor"])
def test_a_run_in_the_folder_of_an_older_one_never_goes_on_with_it(tmp_path, part):
    training(tmp_path / "whole", setting="2").run()
    training(tmp_path / "used", setting="1").run()
    (tmp_path / "used" / "calibration.json").write_text("of the first model")
    run = training(tmp_path / "used", setting="2")
    interrupted(run, *((run.trainer, 2) if part == "network" else (run.z_predictor.trainer, 1)))
    assert (
        not (tmp_path / "used" / "model.pt").exists()
        and not (tmp_path / "used" / "z_predictor").joinpath("checkpoint.pt").exists()
    )
    training(tmp_path / "used", setting="2", resume=True).run()
    assert (tmp_path / "used" / "model.pt").read_bytes() == (tmp_path / "whole" / "model.pt").read_bytes()
    assert not (tmp_path / "used" / "calibration.json").exists()


def test_a_resume_with_other_settings_is_refused(tmp_path):
    interrupted(first := training(tmp_path), first.trainer, 2)
    with pytest.raises(ValueError, match=r"is of another training, which differs in setting \(1, now 2\)"):
        training(tmp_path, setting="2", resume=True).run()
    assert not (tmp_path / "model.pt").exists()


def test_a_part_of_another_model_to_start_from(tmp_path):
    other = ARMED(DFNN(3), 3, (3,))
    torch.save(other.state_dict(), tmp_path / "other.pt")
    run = training(tmp_path, start_from={"network": str(tmp_path / "other.pt")})
    seen = []
    run.trainer.add_event_handler(
        Events.STARTED,
        lambda engine: seen.append(torch.equal(run.network.network.head.weight, other.network.head.weight)),
    )
    run.run()
    assert seen == [True]


HOLD = """
    import sys, time
    from monai_armed.bundle.run_lock import claimed
    with claimed(sys.argv[1]):
        print("claimed", flush=True)
        time.sleep(60)
"""


def test_two_processes_do_not_train_into_one_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "WAIT", 0.1)
    command = [sys.executable, "-c", textwrap.dedent(HOLD), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "claimed\n"
            with pytest.raises(ValueError, match=r"another process is training into .* or give another --output_dir"):
                training(tmp_path).run()
        finally:
            other.kill()  # which leaves its lock to nobody
            other.wait()
    monkeypatch.setattr(run_lock, "WAIT", 10.0)
    training(tmp_path).run()
