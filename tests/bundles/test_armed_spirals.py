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

"""The spiral bundle: its configs agree with each other, its weights are its config's, it runs from any folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow

from monai_armed.compare.study_bundle import StudyBundle
from monai_armed.networks.nets import ARMED, DFNN, ClusterInput
from monai_armed.studies.spirals.simulator import simulate_spirals

ROOT = Path(__file__).parents[2] / "bundles" / "armed_spirals"
MODELS = ["armed", "cluster_input", "conventional", "domain_adversarial", "mldg", "without_adversary"]


@pytest.fixture(scope="module")
def bundle():
    return StudyBundle(ROOT)


def prepare(folder: Path, config: str, **overrides) -> ConfigWorkflow:
    """The workflow of a config, up to and with ``initialize``."""
    configs = ROOT / "configs"
    overrides = {"output_dir": str(folder), **overrides}
    names = ["train", "evaluate"] if config == "evaluate" else [config]
    workflow = ConfigWorkflow([str(configs / f"{name}.json") for name in names], logging_file=False, **overrides)
    workflow.initialize()
    return workflow


def test_it_lists_all_models_of_table_1(bundle):
    assert sorted(bundle.models("all")) == MODELS


@pytest.mark.parametrize("variant", [(), ("paper",)])
@pytest.mark.parametrize("model", MODELS)
def test_evaluation_builds_the_network_that_training_builds(bundle, model, variant):
    bundle = StudyBundle(ROOT, variant)
    networks = [bundle.config(kind, model).get_parsed_content("network_def") for kind in ("train", "evaluate")]
    shapes = [{name: value.shape for name, value in network.state_dict().items()} for network in networks]
    assert shapes[0] == shapes[1]
    kind = {"cluster_input": ClusterInput, "conventional": DFNN, "mldg": DFNN}.get(model, ARMED)
    assert isinstance(networks[0], kind)
    if kind is ARMED:
        assert (networks[0].adversary is None) == (model == "without_adversary")
        assert (networks[0].random_effects is None) == (model == "domain_adversarial")
    width = 4 if variant else 32
    assert networks[0].state_dict()["head.weight" if kind is DFNN else "network.head.weight"].shape == (1, width)


def test_the_papers_network_is_the_papers(bundle):
    """S 3.1.1: three layers of four units, adversary of 8, 8 and 4, Adam at 0.001, 50 epochs."""
    parser = StudyBundle(ROOT, ("paper",)).config("train", "armed")
    network = parser.get_parsed_content("network_def")
    adversary = [m.out_features for m in network.adversary.modules() if isinstance(m, torch.nn.Linear)]
    assert adversary == [8, 8, 4, 10] and network.random_effects.num_effects == 4 + 1
    assert parser["learning_rate"] == 0.001 and parser["max_epochs"] == 50


def test_the_adversary_can_be_conditional_on_the_class(bundle):
    network = bundle.config("train", "armed", {"adversary_classes": 2}).get_parsed_content("network_def")
    outputs = network.train()(torch.zeros(3, 2), torch.tensor([0, 1, 2]))
    assert outputs["adversary"].shape == (3, 10, 2)


def test_metadata_agrees_with_the_network(bundle):
    metadata = json.loads((ROOT / "configs" / "metadata.json").read_text())
    required = "schema version monai_version pytorch_version numpy_version required_packages_version task description"
    assert set(required.split()) | {"authors", "copyright", "network_data_format"} <= set(metadata)
    assert metadata["version"] in metadata["changelog"]
    network = bundle.config("evaluate", "armed").get_parsed_content("network").eval()
    channels = metadata["network_data_format"]["inputs"]["image"]["num_channels"]
    outputs = metadata["network_data_format"]["outputs"]["pred"]["num_channels"]
    assert network(torch.zeros(3, channels)).shape == (3, outputs)


def test_interrupted_training_goes_on_as_if_nothing_had_happened(tmp_path):
    simulate_spirals(1, samples_per_cluster=60, seed=4).save(tmp_path / "sim1.npz")
    options = {"dataset_dir": str(tmp_path), "batch_size": 16, "max_epochs": 3}
    prepare(tmp_path / "whole", "train", **options).run()

    def interrupt(_engine):
        raise KeyboardInterrupt

    cut = prepare(tmp_path / "cut", "train", **options)
    cut.parser.get_parsed_content("train#trainer").add_event_handler(Events.EPOCH_STARTED(once=3), interrupt)
    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        cut.run()
    prepare(tmp_path / "cut", "train", **options, resume=True).run()
    for name in ("model.pt", "network/checkpoint.pt"):
        whole, again = (torch.load(tmp_path / run / name, weights_only=True) for run in ("whole", "cut"))
        weights = (whole, again) if name == "model.pt" else (whole["network"], again["network"])
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert whole["progress"] == again["progress"]
    assert list((tmp_path / "whole" / "tensorboard").glob("events*"))


def test_the_shipped_weights_come_near_the_ceiling(tmp_path):
    """Simulation 1, ceiling 95.2 %: points that the shipped config never trained on. Run from another folder."""
    files = str([str(ROOT / "configs" / f"{name}.json") for name in ("train", "evaluate")])
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", files, "--output_dir", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    predictions = pd.read_csv(tmp_path / "evaluated_predictions.csv")
    assert set(predictions["prediction"]) == {"mixed", "fixed", "randomized"}
    mixed, new = (
        predictions[(predictions["prediction"] == "mixed") & (predictions["partition"] == name)]
        for name in ("test", "unseen")
    )
    assert len(mixed) == 1000 and "best attainable on test: accuracy 0.952" in done.stdout
    assert ((mixed["score"] > 0) == mixed["label"]).mean() > 0.93
    sets = new.assign(covered=[str(label) in words for label, words in zip(new["label"], new["prediction_set"])])
    assert new["site"].nunique() == 40 and sets.groupby("site")["covered"].mean().mean() > 0.88


def test_new_points_are_predicted(tmp_path):
    points = tmp_path / "points.csv"
    points.write_text("x1,x2,cluster\n0.5,0.2,3\n-0.5,0.1,-1\n")
    prepare(tmp_path, "inference", points=str(points)).run()
    rows = pd.read_csv(tmp_path / "predictions.csv")
    assert len(rows) == 2 and rows["probability"].between(0, 1).all()
    assert rows["probability"][1] == pytest.approx(rows["population_probability"][1])  # cluster not known
    assert rows["probability"][0] != pytest.approx(rows["population_probability"][0])
