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

"""What the comparison of models gets from the AD bundle beside its predictions, and the saliency by command."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest
from ad_mri_runs import BUNDLE, run

from monai_armed.compare.fold_scoring import score_fold
from monai_armed.compare.fold_task import FoldTask
from monai_armed.compare.samples_file import write_samples
from monai_armed.compare.study_bundle import StudyBundle
from monai_armed.studies.ad_mri import ad_mri_partitions

pytestmark = pytest.mark.usefixtures("untouched_interpreter")

SALIENCY = {f"{method}_{measure}" for method in ("grad_cam", "occlusion") for measure in ("share", "rank")}


@pytest.fixture
def scored(trained, options, tmp_path):
    """Results of a fold of a model, by the runner's own scoring."""

    def results_of(model: str, dataset: str = options["dataset_dir"]) -> pd.DataFrame:
        overrides = {"dataset_dir": dataset, "simulated_scale": None, "simulated_unseen_scale": None}
        bundle = StudyBundle(BUNDLE, overrides=overrides)
        partitions = ad_mri_partitions(dataset)
        samples = write_samples(partitions, tmp_path / "samples.json")
        folder = tmp_path / model / "fold_00"
        sizes = [len(partitions[name]) for name in ("train", "val", "test")]
        stops = [sum(sizes[:k]) for k in range(4)]
        parts = {name: range(a, b) for name, a, b in zip(("train", "val", "test"), stops, stops[1:])}
        folder.mkdir(parents=True)
        shutil.copy(trained(model) / "model.pt", folder)
        task = FoldTask(folder, model, {}, samples, parts, seed=0)
        score_fold(bundle, task)
        return task.result(bundle)

    return results_of


def test_rows_of_a_fold(scored, tmp_path):
    rows = scored("armed")
    assert not rows.duplicated(["partition", "model", "metric"]).any()
    of = {key: set(part["metric"]) for key, part in rows.groupby(["partition", "model"])}
    table4 = {"auroc", "balanced_accuracy", "sensitivity", "specificity"}
    for model in ("armed", "armed, fixed", "armed, randomized"):
        assert of["seen", model] >= table4 and of["unseen", model] >= table4 | {"leak"}
    for partition in ("seen", "unseen"):
        assert of[partition, "armed, fixed"] >= SALIENCY and not of[partition, "armed"] & SALIENCY
        assert of[partition, "even saliency"] >= SALIENCY and of[partition, "untrained network"] >= SALIENCY
        assert of[partition, "ceiling: region areas"] == table4
    assert of["seen", "site alone"] == of["seen", "ceiling: region areas and site"] == table4
    even = rows[rows["model"] == "even saliency"].set_index("metric").groupby("metric")["value"]
    assert even.get_group("occlusion_rank").tolist() == [0.5, 0.5]
    assert {p.name for p in (tmp_path / "armed" / "fold_00").glob("*.png")} >= {
        "saliency_grad_cam.png",
        "saliency_occlusion.png",
    }


def test_rows_that_no_network_gives_are_those_of_every_model(scored):
    shared = []
    for model in ("armed", "conventional"):
        rows = scored(model)
        own = rows["model"].str.startswith(model)
        assert SALIENCY <= set(rows[own & (rows["partition"] == "unseen")]["metric"])
        shared.append(rows[~own].sort_values(["partition", "model", "metric"]).reset_index(drop=True))
    pd.testing.assert_frame_equal(*shared)


def test_data_whose_truth_nobody_knows(scored, study, tmp_path):
    partitions = ad_mri_partitions(study)
    images = pd.DataFrame([item for name in ("train", "val", "test", "unseen") for item in partitions[name]])
    images.drop(columns="manufacturer").to_csv(tmp_path / "mine.csv", index=False)
    rows = scored("armed", str(tmp_path / "mine.csv"))
    assert set(rows["model"]) == {"armed", "armed, fixed", "armed, randomized", "site alone"}
    assert not set(rows["metric"]) & {"leak", *SALIENCY}


def draw_saliency(trained, output_dir, options) -> None:
    settings = {"ckpt_path": str(trained() / "model.pt"), "output_dir": str(output_dir), "saliency#num_images": 4}
    run("saliency", **settings, **options)


def test_saliency_by_command(trained, options, tmp_path, capsys):
    draw_saliency(trained, tmp_path, options)
    table = pd.read_csv(tmp_path / "saliency.csv")
    assert set(table["partition"]) == {"seen", "unseen"} and len(table) == 8 * 2 * 3
    assert "untrained" in capsys.readouterr().out


def test_saliency_of_data_whose_truth_nobody_knows_is_drawn(trained, options, study, tmp_path, capsys):
    partitions = ad_mri_partitions(study)
    images = pd.DataFrame([item for name in ("train", "val", "test", "unseen") for item in partitions[name]])
    images.to_csv(tmp_path / "mine.csv", index=False)
    draw_saliency(trained, tmp_path / "out", {**options, "dataset_dir": str(tmp_path / "mine.csv")})
    drawn = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"saliency_grad_cam.png", "saliency_occlusion.png"} <= drawn and "saliency.csv" not in drawn
    assert "not scored" in capsys.readouterr().out
