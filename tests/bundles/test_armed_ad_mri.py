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

"""The bundle of the AD study: its files, its models, training by command, resuming, export."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from ad_mri_runs import BUNDLE, command, configs, environment, run, workflow
from monai.bundle import ConfigParser, ckpt_export, onnx_export, verify_net_in_out

from monai_armed.bundle import read_record
from monai_armed.studies.ad_mri import ad_mri_partitions
from monai_armed.studies.ad_mri.record_metrics import evaluate_weights

pytestmark = pytest.mark.usefixtures("untouched_interpreter")

MODELS = {
    "armed": ({"mixed", "fixed", "randomized"}, True),
    "without_adversary": ({"mixed", "fixed", "randomized"}, True),
    "subject_effects": ({"mixed", "fixed", "randomized"}, True),
    "cluster_input": ({"mixed", "randomized"}, True),
    "domain_adversarial": ({"fixed"}, False),
    "conventional": ({"fixed"}, False),
}  # predictions that are evaluated; whether there is a Z-predictor
SITES = 12


def same(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def load(path: Path):
    return torch.load(path, map_location="cpu", weights_only=True)


@pytest.mark.parametrize("step", ["train", "evaluate", "inference"])
def test_all_properties_that_monai_looks_for_are_there(step, trained, options, tmp_path):
    settings = {"output_dir": str(tmp_path), **options}
    if step != "train":
        settings["ckpt_path"] = str(trained() / "model.pt")
    assert not workflow(step, **settings).check_properties()


@pytest.mark.parametrize("model", MODELS)
def test_every_model_trains_and_is_evaluated(model, trained, options, tmp_path):
    folder = trained(model)
    predictions, z_predictor = MODELS[model]
    assert len(read_record(folder / "model.pt")["clusters"]) == SITES
    assert not [path.name for path in folder.glob("*.json")]  # all is in the model's file
    assert any(name.startswith("clusters.z_predictor.") for name in load(folder / "model.pt")) == z_predictor
    assert list((folder / "tensorboard").glob("events*"))
    run("evaluate", model, ckpt_path=str(folder / "model.pt"), output_dir=str(tmp_path), **options)
    metrics = pd.read_csv(tmp_path / "metrics.csv")
    assert set(zip(metrics["partition"], metrics["prediction"])) == {
        (p, k) for p in ("seen", "unseen") for k in predictions
    }
    assert metrics["auroc"].between(0, 1).all()
    table = pd.read_csv(tmp_path / "evaluated_predictions.csv", dtype={"site": str})
    assert np.isfinite(table["score"]).all()
    assert (table.loc[table["partition"] == "unseen", "cluster"] == -1).all()
    assert (table.loc[table["partition"] == "seen", "cluster"] >= 0).all()


def test_inference_on_one_file(trained, image, tmp_path):
    weights = str(trained() / "model.pt")
    run("inference", ckpt_path=weights, dataset_dir=str(image), output_dir=str(tmp_path / "new"))
    (row,) = json.loads((tmp_path / "new" / "predictions.json").read_text())
    assert row["file"] == str(image)
    assert 0 <= row["low"] <= row["probability"] <= row["high"] <= 1
    weights_of_sites = [row[f"like_{k}_weight"] for k in (1, 2, 3)]
    assert weights_of_sites == sorted(weights_of_sites, reverse=True) and 0 < sum(weights_of_sites) <= 1.0001
    sites = read_record(weights)["clusters"]
    assert {row[f"like_{k}"] for k in (1, 2, 3)} <= set(sites)
    assert len(pd.read_csv(tmp_path / "new" / "predictions.csv")) == 1

    run("inference", ckpt_path=weights, dataset_dir=str(image), output_dir=str(tmp_path / "known"), site=sites[3])
    (known,) = json.loads((tmp_path / "known" / "predictions.json").read_text())
    assert "like_1" not in known
    assert known["population_probability"] == pytest.approx(row["population_probability"])


def test_with_another_seed_no_subject_of_the_training_is_evaluated(trained, options, tmp_path):
    run("evaluate", ckpt_path=str(trained() / "model.pt"), output_dir=str(tmp_path), **options, seed=5)
    record = read_record(trained() / "model.pt")["provenance"]
    evaluated = pd.read_csv(tmp_path / "evaluated_predictions.csv")["subject"]
    known = {subject for _, subject in (*record["train"], *record["val"])}
    assert record["train"] and record["val"] and not set(evaluated) & known


def test_evaluation_on_another_hospital_alone(trained, options, study, tmp_path, caplog):
    images = pd.DataFrame(ad_mri_partitions(study)["unseen"]).drop(columns="site_role")
    images.to_csv(tmp_path / "new.csv", index=False)
    settings = {**options, "dataset_dir": str(tmp_path / "new.csv"), "output_dir": str(tmp_path)}
    run("evaluate", ckpt_path=str(trained() / "model.pt"), **settings)
    metrics = pd.read_csv(tmp_path / "metrics.csv")
    assert set(metrics["partition"]) == {"unseen"} and (metrics["samples"] == len(images)).all()
    assert not (tmp_path / "audit.csv").exists() and "there is no audit" in caplog.text


@pytest.mark.parametrize("model", ["cluster_input", "conventional", "without_adversary", "subject_effects"])
def test_inference_on_a_folder_with_the_other_models(model, trained, image, tmp_path):
    weights = str(trained(model) / "model.pt")
    for copy in ("a.nii.gz", "deeper/b.nii.gz"):
        (tmp_path / "scans" / copy).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, tmp_path / "scans" / copy)
    run("inference", model, ckpt_path=weights, dataset_dir=str(tmp_path / "scans"), output_dir=str(tmp_path))
    table = pd.read_csv(tmp_path / "predictions.csv")
    assert [Path(file).name for file in table["file"]] == ["a.nii.gz", "b.nii.gz"]
    assert table["probability"].between(0, 1).all()


def test_effects_of_subjects_within_sites_are_written(trained):
    table = pd.read_csv(trained("subject_effects") / "ranef.csv").groupby("factor")
    assert table["cluster"].nunique()["site"] == SITES and table["cluster"].nunique()["subject"] >= SITES
    assert set(table.get_group("subject")["group"]) == {"intercept"}


@pytest.fixture
def export(trained) -> dict:
    """Arguments of MONAI's export functions."""
    weights = str(trained() / "model.pt")
    arguments = {"config_file": configs("inference")[0], "meta_file": str(BUNDLE / "configs" / "metadata.json")}
    return {"net_id": "network_def", **arguments, "ckpt_path": weights, "ckpt_file": weights}


def test_network_takes_and_gives_what_the_metadata_say(export):
    del export["ckpt_file"]
    verify_net_in_out(device="cpu", **export)


def test_torchscript_and_torch_export_give_the_same(export, inference_network, tmp_path):
    x = torch.rand(3, 1, 80, 80)
    wanted = inference_network(x)
    ckpt_export(filepath=str(tmp_path / "model.ts"), use_trace=True, input_shape=[1, 1, 80, 80], **export)
    torch.testing.assert_close(torch.jit.load(str(tmp_path / "model.ts"), map_location="cpu")(x), wanted.cpu())
    torch.testing.assert_close(torch.export.export(inference_network, (x,)).module()(x), wanted)


def test_onnx_gives_the_same(export, inference_network, tmp_path):
    file = str(tmp_path / "model.onnx")
    names = {"input_names": ["image"], "output_names": ["logit"]}
    onnx_export(filepath=file, input_shape=[2, 1, 80, 80], use_trace=True, converter_kwargs=names, **export)
    x = torch.rand(2, 1, 80, 80)
    (got,) = onnxruntime.InferenceSession(file).run(None, {"image": x.numpy()})
    np.testing.assert_allclose(got, inference_network(x).detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("step", ["train", "evaluate", "inference"])
def test_the_papers_network_is_built(step):
    parser = ConfigParser()
    parser.read_config(configs(step, "paper"))
    parser["sites"] = [str(k) for k in range(SITES)]
    net = parser.get_parsed_content("model")
    assert sum(isinstance(m, torch.nn.Conv2d) for m in net.network.modules()) == 7
    assert net.network.head.in_features == 512
    convolutions = [m for m in net.adversary.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [64, 64, 128, 128, 256, 256, 512]
    out = net(torch.rand(2, 1, 192, 192), torch.tensor([0, SITES - 1]))
    assert out["mixed"].shape == (2, 1) and out["adversary"].shape == (2, SITES)


SHORT = {"max_epochs": 4, "batch_size": 2, "z_predictor#max_epochs": 6, "resume": "true"}


@pytest.fixture(scope="session")
def commanded(options, tmp_path_factory) -> Path:
    """Folder of a training by MONAI's command line, run in a folder that is not the bundle's."""
    place = tmp_path_factory.mktemp("elsewhere")
    words = command("train", place / "out", **SHORT, **options)
    subprocess.run(words, cwd=place, env=environment(), check=True)
    assert [path.name for path in place.iterdir()] == ["out"]
    return place / "out"


@pytest.mark.slow
def test_training_from_another_folder(commanded):
    assert len(read_record(commanded / "model.pt")["clusters"]) == SITES


@pytest.mark.slow
@pytest.mark.parametrize("part, wait", [("network", 0.0), ("network", 0.7), ("z_predictor", 0.0)])
def test_killed_training_goes_on_as_if_nothing_had_happened(part, wait, commanded, options, tmp_path):
    words = command("train", tmp_path / "out", **SHORT, **options)
    process = subprocess.Popen(words, cwd=tmp_path, env=environment())
    try:
        deadline = time.monotonic() + 300
        while not (tmp_path / "out" / part / "checkpoint.pt").is_file():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(wait)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "out" / "model.pt").exists()
    subprocess.run(words, cwd=tmp_path, env=environment(), check=True)
    for name in ("network/checkpoint.pt", "z_predictor/checkpoint.pt", "model.pt"):
        assert same(load(tmp_path / "out" / name), load(commanded / name)), name


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="PyTorch was built without gloo")
def test_two_processes_train_one_model(options, tmp_path):
    files = [*configs("train"), str(BUNDLE / "configs" / "multi_gpu_train.json")]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    settings = {"max_epochs": 1, "batch_size": 4, "z_predictor#max_epochs": 1}
    words = command("train", tmp_path / "out", *torchrun, files=files, **settings, **options)
    subprocess.run(words, cwd=tmp_path, env=environment(), check=True)
    run("evaluate", ckpt_path=str(tmp_path / "out" / "model.pt"), output_dir=str(tmp_path / "scores"), **options)
    assert pd.read_csv(tmp_path / "scores" / "metrics.csv")["auroc"].between(0, 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "quick"])
def test_shipped_weights_have_the_metrics_that_the_bundle_states(name, tmp_path):
    for file in ("models/model.pt", "docs/metrics.json"):
        if not (BUNDLE / file).is_file():
            pytest.skip(f"the bundle has no {file}")
    if name == "full" and os.environ.get("MONAI_ARMED_FULL") != "1":
        pytest.skip("simulating the full study takes minutes; MONAI_ARMED_FULL=1 does it")
    recorded = json.loads((BUNDLE / "docs" / "metrics.json").read_text(encoding="utf-8"))[name]
    key = ["partition", "prediction"]
    wanted = pd.DataFrame(recorded["metrics"]).set_index(key)
    got = evaluate_weights(BUNDLE, recorded["dataset"], tmp_path).set_index(key)
    assert list(got.index) == list(wanted.index) and (got["samples"] == wanted["samples"]).all()
    np.testing.assert_allclose(got["auroc"], wanted["auroc"], atol=0.005)


@pytest.mark.parametrize(
    ("model", "augmented"), [("armed", True), ("conventional", True), ("unaugmented", False), ("paper", False)]
)
def test_training_images_look_as_if_of_other_scanners_unless_told_otherwise(model, augmented):
    parser = ConfigParser()
    parser.read_config(configs("train", model))
    image = torch.rand(1, 80, 80, generator=torch.Generator().manual_seed(0))
    transforms = parser.get_parsed_content("train#preprocessing").transforms
    changed = transforms[-1].set_random_state(0)({"image": image})["image"] if augmented else transforms[-1](image)
    assert bool((changed != image).any()) is augmented
