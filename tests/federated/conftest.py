"""Two small hospitals of three simulated clusters each."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_armed.federated.hospital import Hospital
from monai_armed.federated.hospital_config import hospital_config, hospital_training, hospitals_study
from monai_armed.studies.spirals.simulator import simulate_spirals

SPIRALS = Path(__file__).parents[2] / "bundles" / "armed_spirals"


@pytest.fixture(scope="session")
def overrides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("points")
    simulate_spirals(1, num_clusters=5, samples_per_cluster=60, seed=5).save(folder / "sim1.npz")
    return {"dataset_dir": str(folder), "hidden_channels": [8, 8], "batch_size": 16, "max_epochs": 2}


@pytest.fixture
def hospital(overrides, tmp_path, monkeypatch):
    """Makes the hospital of a number, of two, in a folder of its own; its random effects are inferred roughly."""
    monkeypatch.setattr("monai_armed.federated.hospital.STEPS", 20)

    def make(number: int, folder: str = "run", **more) -> Hospital:
        place = tmp_path / folder / f"site-{number + 1}"
        study = hospitals_study(SPIRALS, {**overrides, **more})
        return Hospital(hospital_training(hospital_config(study, place, number, 2)))

    return make


@pytest.fixture(scope="session")
def names_that_cross() -> dict[str, set[str]]:
    """Of tensors and of numbers; there are no others."""
    shared = {f"network.hidden.{layer}.0.{kind}" for layer in (0, 1) for kind in ("weight", "bias")}
    shared |= {"network.head.weight", "network.head.bias", "random_slopes.cluster.effects.log_prior_scale"}
    shared |= {f"erasers.0.{name}" for name in ("matrix", "offset", "rank")}
    numbers = {"layers", "round", "epochs", "samples", "metric", "metric_name", "layer", "key", "keys", "shapes"}
    return {"tensors": shared | {"masked"}, "numbers": numbers | {"num_values"}}
