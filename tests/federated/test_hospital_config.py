"""A hospital's config: what simulated hospitals share out, and what they agree on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from monai_armed.__main__ import main
from monai_armed.bundle.models import load_model
from monai_armed.federated.hospital_config import check_agreed, hospital_config, hospitals_study, rounds_as_long
from monai_armed.federated.local import run_locally
from monai_armed.studies.mci import fit_features, mci_partitions
from monai_armed.transforms import EncodeRow

ROOT = Path(__file__).parents[2]
MCI, AD_MRI = ROOT / "bundles" / "armed_mci", ROOT / "bundles" / "armed_ad_mri"
DERMOSCOPY = ROOT / "benchmarks" / "real_images" / "bundle"


def test_simulated_hospitals_scale_their_inputs_alike(tmp_path):
    study = hospitals_study(MCI, {})
    parsers = [hospital_config(study, tmp_path), *(hospital_config(study, tmp_path, k, 2) for k in range(2))]
    pooled, *own = (parser.get_parsed_content("encode").columns for parser in parsers)
    assert own[0] == pooled == own[1]
    images = [parser.get_parsed_content("partitions")["train"][0]["image"] for parser in parsers[1:]]
    assert images[0] != images[1]


def test_hospitals_train_with_the_scales_that_they_have_agreed_on(tmp_path):
    fit_features(mci_partitions(data_seed=3)).save(tmp_path / "features.json")
    agreed = {"_target_": "monai_armed.studies.mci.agreed_features", "partitions": "@partitions"}
    agreed["path"] = str(tmp_path / "features.json")
    study, columns = hospitals_study(MCI, {"encode": agreed}), EncodeRow.load(tmp_path / "features.json").columns
    check_agreed(study)
    for hospitals in (1, 2):
        parser = hospital_config(study, tmp_path, 0, hospitals)
        assert parser.get_parsed_content("encode").columns == columns
        assert parser.get_parsed_content("record")["features"] == columns


def test_hospitals_that_have_not_agreed_on_scales_are_refused(tmp_path, capsys):
    command = ["federated", "--bundle", str(MCI), "--out", str(tmp_path)]
    for more in (["--export"], ["--join", str(tmp_path / "shared.pt")]):
        assert main([*command, *more]) == 2
        assert "'encode': learned from the data of all hospitals" in capsys.readouterr().err


def override_file(root: Path, name: str, content: dict) -> None:
    (root / "configs" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def test_the_model_is_what_the_bundle_has_of_the_default_or_what_is_asked_for(tmp_path):
    assert hospitals_study(MCI, {}).variant == hospitals_study(AD_MRI, {}).variant == ["without_adversary", "erased"]
    assert hospitals_study(DERMOSCOPY, {}).variant == ["erased"]
    assert hospitals_study(MCI, {}, "without_adversary").variant == ["without_adversary"]
    assert hospitals_study(MCI, {}, "armed").variant == []
    for model, message in (("erased,paper", "one model"), ("federated", "no model 'federated' in .*'erased'")):
        with pytest.raises(ValueError, match=message):
            hospitals_study(MCI, {}, model)
    own = tmp_path / "own"
    shutil.copytree(MCI / "configs", own / "configs")
    override_file(own, "wide", {"hidden_channels": [3, 5]})
    study = hospitals_study(own, {}, "wide+without_adversary+erased")
    network = hospital_config(study, tmp_path).get_parsed_content("network_def")
    assert network.adversary is None and network.erased_layers and network.network.hidden[1][0].out_features == 5


@pytest.mark.parametrize(("local_epochs", "rounds"), [(1, 60), (7, 9)])
def test_rounds_see_every_sample_as_often_as_the_bundles_training(local_epochs, rounds):
    assert rounds_as_long(hospitals_study(MCI, {}), local_epochs) == rounds
    assert rounds_as_long(hospitals_study(MCI, {"max_epochs": 7}), local_epochs) == 7 // local_epochs


def test_a_hospital_has_a_z_predictor_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr("monai_armed.federated.hospital.STEPS", 20)
    study = hospitals_study(MCI, {"hidden_channels": [4], "adversary_channels": [4], "z_predictor#max_epochs": 1})
    run_locally(study, tmp_path, 2, 1, 1)
    for number in range(2):
        parser = hospital_config(study, tmp_path / f"site-{number + 1}", number, 2)
        z_predictor = parser.get_parsed_content("z_predictor#network_def")
        network = load_model(
            parser.get_parsed_content("network_def"), tmp_path / f"site-{number + 1}" / "model.pt", "cpu", z_predictor
        )
        assert network.num_clusters == 10
        inferred = network.clusters.infer(torch.zeros(2, parser.get_parsed_content("num_features")))
        assert inferred.shape == (2, 10)
