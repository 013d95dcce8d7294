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

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from monai_armed.studies.ad_mri import ad_mri_partitions, with_true_regions
from monai_armed.studies.ad_mri.ceilings import AREAS, ceiling_scores
from monai_armed.studies.ad_mri.truth import ad_mri_truth, read_truth


def test_truth_and_regions_are_those_of_the_images(study):
    images = ad_mri_partitions(study)["test"][::-1]
    table = ad_mri_truth(images, study)
    assert table["subject"].tolist() == [item["subject"] for item in images]
    assert table["site"].tolist() == [item["site"] for item in images]
    assert table["label"].tolist() == [item["label"] for item in images]
    for item, with_region, row in zip(images, with_true_regions(images, study), table.to_dict("records")):
        assert {**item, "roi": with_region["roi"]} == with_region
        mask = nib.load(with_region["roi"])
        assert set(np.unique(mask.dataobj)) == {0, 1, 2} and row["mask"] in with_region["roi"]


def test_data_without_a_truth(study, tmp_path):
    images = ad_mri_partitions(study)["test"]
    assert ad_mri_truth(images, tmp_path) is None
    for place in (tmp_path, tmp_path / "images.csv"):
        same = with_true_regions(images, place)
        assert same == images and same[0] is not images[0]
    with pytest.raises(FileNotFoundError, match="simulate_ad_mri"):
        read_truth(tmp_path)


def test_an_image_that_is_not_of_the_study_is_named(study):
    with pytest.raises(ValueError, match=r"scan.nii.gz is not in .* simulate it again"):
        with_true_regions([{"image": str(study / "scan.nii.gz")}], study)


def test_scores_of_the_site_are_its_share_and_of_an_unknown_one_the_mean():
    train = pd.DataFrame({"site": list("aaab"), "label": [1, 1, 0, 0]})
    scores = ceiling_scores(train, pd.DataFrame({"site": list("bca")}), ["site"])
    np.testing.assert_allclose(scores, [0, 0.5, 2 / 3])


def test_scores_of_quantities_are_learned_in_training():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(200, 2)), columns=AREAS)
    table["label"] = (table[AREAS[0]] - 2 * table[AREAS[1]] > 0).astype(int)
    table["site"] = rng.choice(list("ab"), 200)
    train, test = table[:150], table[150:]
    for columns in (AREAS, [*AREAS, "site"]):
        assert (ceiling_scores(train, test, columns) > 0).astype(int).tolist() == pytest.approx(test["label"], abs=1)
        assert np.corrcoef(ceiling_scores(train, test, columns), test["label"])[0, 1] > 0.7
    assert np.corrcoef(ceiling_scores(train.assign(label=1 - train["label"]), test, AREAS), test["label"])[0, 1] < -0.7
