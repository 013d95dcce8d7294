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

"""The AD study on the volume around the hippocampi, by one override file."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from ad_mri_runs import configs, run
from monai.bundle import ConfigParser
from monai.networks.nets import DenseNet

from monai_armed.networks.nets import CNN
from monai_armed.transforms import LoadVolumed, WorldBox

pytestmark = pytest.mark.usefixtures("untouched_interpreter")

SHAPE = (1, 49, 13, 41)


def parsed(step: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(configs(step, "volume"))
    parser["sites"] = ["002", "005", "016"]
    return parser


DENSENET = {
    "_target_": "monai.networks.nets.DenseNet",
    **{"spatial_dims": 3, "in_channels": 1, "out_channels": 1},
    **{"init_features": 16, "growth_rate": 8, "block_config": [2, 2, 2]},
}


@pytest.mark.parametrize("step", ["train", "evaluate", "inference"])
@pytest.mark.parametrize("base", [None, DENSENET])
def test_the_network_is_of_three_dimensions_and_may_be_one_of_monais(step, base):
    parser = parsed(step)
    if base is not None:
        parser.update({"base_network": base, "model#feature_layers": ["class_layers.flatten"]})
    net = parser.get_parsed_content("model")
    assert isinstance(net.network, CNN if base is None else DenseNet)
    out = net(torch.rand(2, *SHAPE), torch.tensor([0, 2]))
    assert out["mixed"].shape == (2, 1) and out["adversary"].shape == (2, 3)
    assert parser.get_parsed_content("z_predictor#network_def")(torch.rand(2, *SHAPE)).shape == (2, 3)


def test_the_saliency_is_not_scored():
    """Its regions and pictures are those of the slice."""
    parser = parsed("saliency")
    parser["predictions"] = {"fixed": None}
    assert parser["saliency_table"] is None and parser.get_parsed_content("scores#saliency") == []


def test_the_box_holds_the_hippocampi_whole(study):
    truths = sorted(study.glob("derivatives/truth/sub-*/**/*_dseg.nii.gz"))
    config = parsed("train")["cut_image"]
    box = WorldBox(config["centre"], SHAPE[1:], mode="nearest")
    for truth in truths[::5]:
        drawn = np.asarray(nib.load(truth).dataobj) == 1
        cut = box(LoadVolumed("mask", ensure_channel_first=True)({"mask": str(truth)})["mask"]) == 1
        assert int(cut.sum()) == drawn.sum() > 0


def test_cached_volumes_are_turned_and_scaled_as_the_slices(study):
    """Left and right are swapped by the flip, and the scale is that of the slices, by percentiles."""
    parser = parsed("train")
    volume = [parser.get_parsed_content(n) for n in ("load_image", "cut_image", "scale_image", "image_to_tensor")]
    sample = {"image": str(sorted(study.glob("sub-*/**/*_T1w.nii.gz"))[0])}
    for transform in volume:
        sample = transform(sample)
    image = sample["image"]
    assert image.shape == SHAPE and image.dtype == torch.float32
    assert float(image.quantile(0.02)) == pytest.approx(0, abs=0.01)
    assert float(image.quantile(0.98)) == pytest.approx(1, abs=0.01)
    flip, affine, *_ = parser.get_parsed_content("train#preprocessing").transforms
    flip.set_random_state(0).prob = 1.0
    torch.testing.assert_close(torch.as_tensor(flip({"image": image})["image"]), image.flip(1))
    moved = affine.set_random_state(0)({"image": image})["image"]
    assert moved.shape == SHAPE and not torch.equal(torch.as_tensor(moved), image)


def test_it_trains_is_evaluated_and_predicts_one_file(trained, options, image, tmp_path):
    weights = str(trained("volume") / "model.pt")
    assert any(name.startswith("clusters.z_predictor.") for name in torch.load(weights, weights_only=True))
    run("evaluate", "volume", ckpt_path=weights, output_dir=str(tmp_path), **options)
    metrics = pd.read_csv(tmp_path / "metrics.csv")
    kinds = {(partition, k) for partition in ("seen", "unseen") for k in ("mixed", "fixed", "randomized")}
    assert set(zip(metrics["partition"], metrics["prediction"])) == kinds
    assert metrics["auroc"].between(0, 1).all()

    run("inference", "volume", ckpt_path=weights, dataset_dir=str(image), output_dir=str(tmp_path / "new"))
    (row,) = json.loads((tmp_path / "new" / "predictions.json").read_text())
    assert row["file"] == str(image) and 0 <= row["low"] <= row["probability"] <= row["high"] <= 1
    table = pd.read_csv(tmp_path / "evaluated_predictions.csv")
    subject, session = image.name.split("_")[:2]
    same = table["subject"].eq(subject) & table["session"].eq(session) & table["prediction"].eq("fixed")
    (logit,) = table.loc[same, "score"]
    assert row["population_probability"] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-4)
