"""A hospital that comes when the others have trained: it learns its random effects, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ignite.engine import Events

from monai_armed.__main__ import main
from monai_armed.bundle.models import load_model
from monai_armed.federated import Hospital, Message, load_shared, shared_state
from monai_armed.federated.hospital_config import hospital_config, hospital_training, hospitals_study
from monai_armed.federated.local import run_locally
from monai_armed.networks import adapt
from monai_armed.studies.spirals.simulator import simulate_spirals

MCI = Path(__file__).parents[2] / "bundles" / "armed_mci"
SPIRALS = Path(__file__).parents[2] / "bundles" / "armed_spirals"
BCE = torch.nn.BCEWithLogitsLoss()


def samples(items: list[dict]) -> tuple[torch.Tensor, ...]:
    x, label = (torch.stack([torch.as_tensor(item[key]) for item in items]) for key in ("image", "label"))
    return x.float(), label.float().reshape(-1, 1), torch.tensor([int(item["cluster"]) for item in items])


@pytest.mark.slow
def test_its_samples_are_predicted_better_than_by_the_population(tmp_path, monkeypatch, capsys):
    for name, seed in (("others", 5), ("new", 6)):
        (tmp_path / name).mkdir()
        simulate_spirals(1, num_clusters=4, samples_per_cluster=150, seed=seed).save(tmp_path / name / "sim1.npz")
    overrides = {"hidden_channels": [16, 16], "batch_size": 16, "learning_rate": 0.01}
    with monkeypatch.context() as roughly:
        roughly.setattr("monai_armed.federated.hospital.STEPS", 20)  # those of the others are not used
        data = {"dataset_dir": str(tmp_path / "others")}
        shared = run_locally(hospitals_study(SPIRALS, {**overrides, **data}), tmp_path / "run", 2, 40, 1)

    own = {**overrides, "dataset_dir": str(tmp_path / "new")}
    command = ["federated", "--bundle", str(SPIRALS), "--out", str(tmp_path / "hospital")]
    settings = [f"--set={name}={value}" for name, value in own.items()]
    assert main([*command, "--join", str(tmp_path / "run" / "shared.pt"), *settings]) == 0
    assert str(tmp_path / "hospital" / "model.pt") in capsys.readouterr().out

    config = hospital_config(hospitals_study(SPIRALS, own), tmp_path / "hospital")
    network = load_model(config.get_parsed_content("network_def"), tmp_path / "hospital" / "model.pt").eval()
    torch.testing.assert_close(shared_state(network), shared, rtol=0, atol=0)
    partitions = config.get_parsed_content("partitions")
    x, label, cluster = samples(partitions["test"])
    with torch.no_grad():
        losses = {effects: BCE(network(x, cluster, effects=effects), label) for effects in ("mixed", "fixed")}
    assert losses["mixed"] < 0.9 * losses["fixed"]

    # and by adapt, of one of its clusters
    alone = hospital_config(hospitals_study(SPIRALS, own), tmp_path / "alone").get_parsed_content("network_def")
    load_shared(alone, shared)
    x_known, label_known, cluster_known = samples(partitions["train"])
    first = cluster_known == 0
    adapted = adapt(alone, x_known[first], label_known[first], BCE)
    new, here = torch.full((int((cluster == 0).sum()),), alone.num_clusters), cluster == 0
    with torch.no_grad():
        joined, own_way, fixed = (
            network(x[here], cluster[here]),
            adapted(x[here], new),
            network(x[here], cluster[here], effects="fixed"),
        )
    assert (joined - own_way).square().mean() < 0.05 * (joined - fixed).square().mean()


def test_the_z_predictor_sees_all_samples_of_a_small_hospital(tmp_path, monkeypatch):
    """Of one that trains with others it has as many steps as theirs, of one that joins with less than a batch, one."""
    monkeypatch.setattr("monai_armed.federated.hospital.STEPS", 2)
    study = hospitals_study(MCI, {"num_seen": 2, "batch_size": 64, "max_epochs": 1, "z_predictor#max_epochs": 1})
    for samples, steps in ((None, 1), (320, 5)):
        hospital = Hospital(hospital_training(hospital_config(study, tmp_path / str(steps))))
        assert hospital.samples < 64
        seen = list[int]()
        hospital.training.z_predictor.trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda engine, seen=seen: seen.append(len(engine.state.batch["image"]))
        )
        hospital.answer(Message("start"))
        about = {} if samples is None else {"samples": samples}
        hospital.answer(Message("finish", shared_state(hospital.network), about))
        share = hospital.samples if samples is None else round(64 * hospital.samples / samples)
        assert seen == [share] * steps
        assert hospital.training.model_path.is_file()


def test_another_network_is_refused(overrides, tmp_path):
    torch.save({"network.head.weight": torch.zeros(1, 3)}, tmp_path / "shared.pt")
    command = ["federated", "--bundle", str(SPIRALS), "--out", str(tmp_path), "--join", str(tmp_path / "shared.pt")]
    assert main([*command, *(f"--set={name}={value}" for name, value in overrides.items())]) == 2
