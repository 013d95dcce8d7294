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
"""Hospitals of the AD study, whose samples name their site."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from monai.bundle import ConfigParser

from monai_armed.bundle import read_record
from monai_armed.federated.hospital_config import hospital_config, hospitals_study
from monai_armed.federated.local import run_locally

AD_MRI = Path(__file__).parents[2] / "bundles" / "armed_ad_mri"
SITES = ("002", "005", "016", "020")


@pytest.fixture
def overrides(tmp_path):
    """Twelve subjects at each of four sites, which lighten another quarter; and a network of a few weights."""
    rng = np.random.default_rng(0)
    affine = np.diag([15.0, 15, 15, 1])
    affine[:3, 3] = -82, -36, -60  # mm
    rows = []
    for k in range(48):
        noise = rng.random((12, 5, 12), dtype=np.float32)
        noise[3 * (k // 12) : 3 * (k // 12) + 3] += 1
        image = nib.Nifti1Image(noise, affine)
        image.header.set_xyzt_units("mm")
        nib.save(image, tmp_path / f"{k}.nii.gz")
        rows.append({"image": f"{k}.nii.gz", "label": k % 2, "site": SITES[k // 12], "subject": f"s{k}"})
    pd.DataFrame(rows).to_csv(tmp_path / "images.csv", index=False)
    small = {
        "image_size": 8,
        "pixel_size": 20.0,
        "base_network#channels": [4],
        "base_network#dense_channels": 8,
        "batch_size": 4,
        "max_epochs": 2,
    }
    small |= {"z_predictor#network_def#network#channels": [2, 2], "z_predictor#max_epochs": 1}
    return {"dataset_dir": str(tmp_path / "images.csv"), "device": "cpu", "cache_dir": str(tmp_path / "cache"), **small}


def test_each_has_its_own_sites_and_the_fixed_part_of_all(overrides, names_that_cross, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("monai_armed.federated.hospital.STEPS", 2)
    shared = run_locally(hospitals_study(AD_MRI, overrides), tmp_path / "run", 2, 2, 1)
    models = [tmp_path / "run" / f"site-{number}" / "model.pt" for number in (1, 2)]
    assert [read_record(model)["clusters"] for model in models] == [["002", "005"], ["016", "020"]]
    weights = [torch.load(model, weights_only=True) for model in models]
    for name, tensor in shared.items():
        assert all(torch.equal(own[name], tensor) for own in weights), name
    assert int(shared["erasers.0.rank"]) > 0
    effects = [own["random_slopes.cluster.effects.loc"] for own in weights]
    assert effects[0].shape == effects[1].shape and not torch.equal(*effects)
    crossed = set(pd.read_csv(tmp_path / "run" / "messages.csv")["name"])
    crossed -= names_that_cross["numbers"] | {"random_slopes.cluster.effects.log_prior_scale"}
    assert {name for name in crossed if not name.startswith(("network.", "erasers."))} == {"masked"}
    assert "round 2 of 2: 2 hospitals" in capsys.readouterr().out
    for step in (["train", "evaluate"], ["inference"]):  # a hospital evaluates and predicts with the model's files last
        parser = ConfigParser()
        parser.read_config([AD_MRI / "configs" / f"{name}.json" for name in (*step, "without_adversary", "erased")])
        parser.update({**overrides, "bundle_root": str(AD_MRI), "ckpt_path": str(models[0])})
        assert parser.get_parsed_content("network").num_clusters == 2


def test_a_hospitals_samples_are_numbered_by_its_own_sites(overrides, tmp_path):
    for number, own in enumerate((SITES[:2], SITES[2:])):
        parser = hospital_config(hospitals_study(AD_MRI, overrides), tmp_path, number, 2)
        parts, data = parser.get_parsed_content("partitions"), parser.get_parsed_content("train#cached")
        assert {item["site"] for item in parts["train"]} == set(own) and len(data) == len(parts["train"])
        assert [own[int(sample["cluster"])] for sample in data] == [item["site"] for item in parts["train"]]


def test_without_a_held_out_sample_the_z_predictor_is_not_calibrated(overrides, tmp_path, capsys):
    parser = hospital_config(hospitals_study(AD_MRI, {**overrides, "validation_data": []}), tmp_path)
    training = parser.get_parsed_content("z_predictor#training")
    training.trainer.run()
    training.finish()
    assert "the Z-predictor is not calibrated: no sample is held out" in capsys.readouterr().out


def test_a_hospital_of_one_site_has_nothing_to_infer(overrides, tmp_path, capsys):
    parser = hospital_config(hospitals_study(AD_MRI, overrides), tmp_path, 0, len(SITES))
    training = parser.get_parsed_content("z_predictor#training")
    training.trainer.run()
    training.finish()
    assert "the Z-predictor knows one cluster alone and infers none" in capsys.readouterr().out
