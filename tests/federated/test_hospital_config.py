"""A hospital's config: what simulated hospitals share out, and what they agree on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from monai_armed.bundle.models import load_model
from monai_armed.federated.hospital_config import hospital_config, rounds_as_long
from monai_armed.federated.local import run_locally
from monai_armed.studies.mci import fit_features, mci_partitions
from monai_armed.transforms import EncodeRow

MCI = Path(__file__).parents[2] / "bundles" / "armed_mci"


def test_simulated_hospitals_scale_their_inputs_alike(tmp_path):
    parsers = [hospital_config(MCI, tmp_path, {}), *(hospital_config(MCI, tmp_path, {}, k, 2) for k in range(2))]
    pooled, *own = (parser.get_parsed_content("encode").columns for parser in parsers)
    assert own[0] == pooled == own[1]
    images = [parser.get_parsed_content("partitions")["train"][0]["image"] for parser in parsers[1:]]
    assert images[0] != images[1]


def test_hospitals_train_with_the_scales_that_they_have_agreed_on(tmp_path):
    fit_features(mci_partitions(data_seed=3)).save(tmp_path / "features.json")
    agreed = {"_target_": "monai_armed.transforms.EncodeRow.load", "path": str(tmp_path / "features.json")}
    parser = hospital_config(MCI, tmp_path, {"encode": agreed})
    columns = EncodeRow.load(tmp_path / "features.json").columns
    assert parser.get_parsed_content("encode").columns == columns
    assert parser.get_parsed_content("record")["features"] == columns


@pytest.mark.parametrize(("local_epochs", "rounds"), [(1, 60), (7, 9)])
def test_rounds_see_every_sample_as_often_as_the_bundles_training(local_epochs, rounds):
    assert rounds_as_long(MCI, {}, local_epochs) == rounds
    assert rounds_as_long(MCI, {"max_epochs": 7}, local_epochs) == 7 // local_epochs


def test_a_hospital_has_a_z_predictor_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr("monai_armed.federated.hospital.STEPS", 20)
    overrides = {"hidden_channels": [4], "adversary_channels": [4], "z_predictor#max_epochs": 1}
    run_locally(MCI, tmp_path, overrides, 2, 1, 1)
    for number in range(2):
        parser = hospital_config(MCI, tmp_path / f"site-{number + 1}", overrides, number, 2)
        z_predictor = parser.get_parsed_content("z_predictor#network_def")
        network = load_model(
            parser.get_parsed_content("network_def"), tmp_path / f"site-{number + 1}" / "model.pt", "cpu", z_predictor
        )
        assert network.num_clusters == 10
        inferred = network.clusters.infer(torch.zeros(2, parser.get_parsed_content("num_features")))
        assert inferred.shape == (2, 10)
