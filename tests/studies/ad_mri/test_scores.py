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

"""Leak, site alone and ceilings of the AD study."""

from __future__ import annotations

import pandas as pd
import pytest

from monai_armed.metrics.leak import cluster_leak
from monai_armed.studies.ad_mri import ad_mri_partitions
from monai_armed.studies.ad_mri.scores import score_ad_mri


@pytest.fixture
def partitions() -> dict:
    def images(name: str, sites: str, labels: list[int]) -> list[dict]:
        return [{"image": f"/{name}/{k}", "site": s, "label": y} for k, (s, y) in enumerate(zip(sites, labels))]

    return {
        "train": images("train", "aaabbb", [1, 1, 0, 0, 0, 1]),
        "test": images("test", "aabb", [1, 0, 0, 0]),
        "unseen": images("unseen", "uuuvvv", [0, 1, 0, 0, 0, 1]),
    }


def save_predictions(folder, makers: list[str] | None) -> None:
    tables = []
    for model, sign in (("armed", 1), ("armed, fixed", 0)):
        scores = [3.0, -9.0, 4.0, 1.0, 3.5, 9.0]
        table = pd.DataFrame({"label": [0, 1, 0, 0, 0, 1], "score": [s * sign for s in scores], "site": list("uuuvvv")})
        table = table.assign(model=model, partition="unseen")
        tables += [table.assign(manufacturer=makers) if makers else table, table.assign(partition="seen")]
    pd.concat(tables).to_csv(folder / "predictions.csv", index=False)


def test_leak_of_each_prediction_among_unseen_controls(partitions, tmp_path):
    save_predictions(tmp_path, ["General Electric"] * 3 + ["Siemens"] * 3)
    rows = pd.DataFrame(score_ad_mri(partitions, ["mixed", "fixed"], tmp_path, tmp_path))
    leak = rows[rows["metric"] == "leak"].set_index("prediction")
    wanted = cluster_leak([3.0, 4.0, 1.0, 3.5], [True, True, False, False])
    assert leak["value"].to_dict() == {"mixed": wanted, "fixed": 0.5} and set(leak["partition"]) == {"unseen"}


def test_data_without_makers_or_truth_have_the_site_alone(partitions, tmp_path):
    save_predictions(tmp_path, None)
    rows = pd.DataFrame(score_ad_mri(partitions, ["mixed", "fixed"], tmp_path, tmp_path))
    assert set(rows["model"]) == {"site alone"} and set(rows["partition"]) == {"seen"}
    found = rows.set_index("metric")["value"]
    assert found.to_dict() == pytest.approx(
        {"auroc": 5 / 6, "balanced_accuracy": 5 / 6, "sensitivity": 1, "specificity": 2 / 3}
    )


def test_a_site_that_has_no_second_class_to_score(partitions, tmp_path):
    save_predictions(tmp_path, None)
    partitions["test"] = partitions["test"][1:]
    assert score_ad_mri(partitions, ["mixed", "fixed"], tmp_path, tmp_path) == []


def test_ceilings_of_a_simulated_study(study, tmp_path):
    save_predictions(tmp_path, None)
    partitions = ad_mri_partitions(study)
    rows = pd.DataFrame(score_ad_mri(partitions, ["mixed", "fixed"], study, tmp_path))
    auroc = rows[rows["metric"] == "auroc"].set_index(["partition", "model"])["value"]
    assert set(auroc.index) == {
        ("seen", "site alone"),
        ("seen", "ceiling: region areas"),
        ("seen", "ceiling: region areas and site"),
        ("unseen", "ceiling: region areas"),
    }
    assert auroc["unseen", "ceiling: region areas"] > 0.7
    without = score_ad_mri({**partitions, "unseen": []}, ["mixed", "fixed"], study, tmp_path)
    assert {row["partition"] for row in without} == {"seen"}
