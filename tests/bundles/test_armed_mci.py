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

"""The MCI bundle: its configs agree with each other, its weights are its config's, new subjects and new sites."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pandas as pd
import pytest
import torch
from monai.bundle import ConfigWorkflow

from monai_armed.bundle import read_record, write_model
from monai_armed.compare.study_bundle import StudyBundle
from monai_armed.metrics.calibration_file import read_calibrations
from monai_armed.metrics.prediction_sets import set_columns
from monai_armed.networks.nets import ARMED, DFNN, ClusterInput
from monai_armed.studies.mci.simulator import simulate_conversion

ROOT = Path(__file__).parents[2] / "bundles" / "armed_mci"
MODELS = ["armed", "cluster_input", "conventional", "domain_adversarial", "mldg", "without_adversary"]


@pytest.fixture(scope="module")
def bundle():
    return StudyBundle(ROOT)


def prepare(folder: Path, config: str, model: str = "", **overrides) -> ConfigWorkflow:
    """The workflow of a config, up to and with ``initialize``."""
    configs = ROOT / "configs"
    names = [*(["train", "evaluate"] if config == "evaluate" else [config]), *([model] if model else [])]
    files = [str(configs / f"{name}.json") for name in names]
    workflow = ConfigWorkflow(files, logging_file=False, output_dir=str(folder), **overrides)
    workflow.initialize()
    return workflow


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folders of models that were trained for two epochs."""
    folders: dict[str, Path] = {}

    def folder_of(model: str = "") -> Path:
        if model not in folders:
            folders[model] = tmp_path_factory.mktemp(model or "armed")
            short = {"max_epochs": 2, "z_predictor#max_epochs": 1}
            prepare(folders[model], "train", model, **short).run()
        return folders[model]

    return folder_of


def test_it_lists_all_models_of_table_3(bundle):
    assert sorted(bundle.models("all")) == sorted(set(MODELS) - {"mldg"})
    assert bundle.models("mldg") == ["mldg"]
    paper = bundle.published
    assert set(paper["model"]) == set(MODELS) - {"mldg"} | {"armed, randomized"} and len(paper) == 6 * 2 * 4
    seen = paper[(paper["partition"] == "seen") & (paper["metric"] == "auroc")].set_index("model")
    assert seen.loc["armed", ["value", "low", "high"]].tolist() == [0.926, 0.901, 0.951]
    assert (paper["low"] < paper["value"]).all() and (paper["value"] < paper["high"]).all()


@pytest.mark.parametrize("variant", [(), ("paper",)])
@pytest.mark.parametrize("model", MODELS)
def test_evaluation_builds_the_network_that_training_builds(bundle, model, variant, tmp_path):
    bundle = StudyBundle(ROOT, variant)
    train = bundle.config("train", model)
    write_model({}, train.get_parsed_content("record"), tmp_path / "model.pt")
    evaluate = bundle.config("evaluate", model, {"ckpt_path": str(tmp_path / "model.pt")})
    networks = [train.get_parsed_content("network_def"), evaluate.get_parsed_content("model")]
    shapes = [{name: value.shape for name, value in network.state_dict().items()} for network in networks]
    assert shapes[0] == shapes[1]
    kind = {"cluster_input": ClusterInput, "conventional": DFNN, "mldg": DFNN}.get(model, ARMED)
    assert isinstance(networks[0], kind)
    if kind is ARMED:
        assert (networks[0].adversary is None) == (model == "without_adversary")
        slopes = networks[0].random_slopes
        groups = slopes["cluster"].groups if len(slopes) else {}
        assert groups == ({} if model == "domain_adversarial" else {"linear": 37, "intercept": 1})
    optimizer = train.get_parsed_content("optimizer")
    learned = {id(p) for group in optimizer.param_groups for p in group["params"] if p.requires_grad}
    assert learned == {id(p) for p in networks[0].parameters() if p.requires_grad}


def test_metadata_agrees_with_the_network(bundle):
    metadata = json.loads((ROOT / "configs" / "metadata.json").read_text())
    assert metadata["version"] in metadata["changelog"]
    network = bundle.config("evaluate", "armed").get_parsed_content("network").eval()
    channels = metadata["network_data_format"]["inputs"]["image"]["num_channels"]
    assert network(torch.zeros(3, channels)).shape == (3, 1)


def test_training_leaves_all_that_evaluation_and_the_reader_need(trained, tmp_path):
    folder = trained()
    ranef, varcorr = (pd.read_csv(folder / f"{name}.csv") for name in ("ranef", "varcorr"))
    assert len(ranef) == 20 * 38 and {"CDRSB_bl", "PTGENDER=Male", "(Intercept)"} <= set(varcorr["effect"])
    state = torch.load(folder / "model.pt", weights_only=True)
    loc = state["random_slopes.cluster.effects.loc"].flatten()
    assert torch.allclose(loc, torch.tensor(ranef["mean"].to_numpy(), dtype=loc.dtype))  # those of the saved weights
    prepare(tmp_path, "evaluate", ckpt_path=str(folder / "model.pt")).run()
    metrics = pd.read_csv(tmp_path / "metrics.csv")
    assert set(zip(metrics["partition"], metrics["prediction"])) == {
        (partition, prediction) for partition in ("seen", "unseen") for prediction in ("mixed", "fixed", "randomized")
    }
    audit = pd.read_csv(tmp_path / "audit.csv")
    assert audit["layer"].nunique() == 2 and set(audit["class"].astype(str)) >= {"all", "0"}


@pytest.mark.parametrize("model", ["cluster_input", "conventional", "domain_adversarial", "without_adversary"])
def test_other_models_train_and_evaluate(trained, model, tmp_path):
    prepare(tmp_path, "evaluate", model, ckpt_path=str(trained(model) / "model.pt")).run()
    assert pd.read_csv(tmp_path / "metrics.csv")["auroc"].between(0, 1).all()


def test_the_shipped_weights_are_those_of_the_simulated_study(tmp_path):
    """Test subjects that the shipped config never trained on. Run from another folder."""
    files = str([str(ROOT / "configs" / f"{name}.json") for name in ("train", "evaluate")])
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", files, "--output_dir", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    metrics = pd.read_csv(tmp_path / "metrics.csv").set_index(["partition", "prediction"])["auroc"]
    assert metrics["seen", "mixed"] > 0.7 and metrics["unseen", "mixed"] > 0.65
    assert "best attainable" in done.stdout
    shutil.copy(ROOT / "models" / "model.pt", tmp_path)
    written, shipped = (read_calibrations(folder / "model.pt") for folder in (tmp_path, ROOT / "models"))
    assert written.keys() == shipped.keys() == {"mixed", "fixed", "randomized"}
    for name, calibration in shipped.items():
        assert written[name].to_dict() == pytest.approx(calibration.to_dict(), rel=1e-3)


def test_new_subjects_of_known_and_unknown_sites(bundle, tmp_path):
    sites = read_record(ROOT / "models" / "model.pt")["clusters"]
    table = simulate_conversion(5).table.astype(str)
    table = table[table["VISCODE"] == "bl"].iloc[:4].assign(SITE=[sites[0], sites[1], "nowhere", "nowhere"])
    table.drop(columns=["VISCODE", "DX", "DX_bl"]).to_csv(tmp_path / "new.csv", index=False)
    prepare(tmp_path, "inference", dataset_dir=str(tmp_path / "new.csv")).run()
    rows = pd.read_csv(tmp_path / "predictions.csv", dtype={"like_1": str})
    assert rows["subject"].tolist() == table["PTID"].tolist() and rows["probability"].between(0, 1).all()
    assert (rows["low"] < rows["high"]).all()
    assert rows["like_1_weight"].tolist()[:2] == [1, 1] and rows["like_1"].tolist()[:2] == sites[:2]
    assert rows["like_1"].isna().tolist()[2:] == [True, True]  # like none
    # the simulated sites do not differ in their features: the Z-predictor has no idea, the population is predicted
    assert rows["probability"].tolist()[2:] == pytest.approx(rows["population_probability"].tolist()[2:])
    assert rows["probability"][0] != pytest.approx(rows["population_probability"][0])
    assert rows["prediction_set"].isna().tolist() == [True, True, False, False]
    shipped = read_calibrations(ROOT / "models" / "model.pt")["fixed"]
    logits = torch.logit(torch.tensor(rows["probability"].tolist()[2:]))[:, None]
    wanted = set_columns(shipped.probabilities(logits), shipped.sets(logits))
    assert rows["prediction_set"].tolist()[2:] == wanted["prediction_set"]


def test_a_new_site_is_adapted_to_as_the_docs_say(tmp_path, monkeypatch, capsys):
    """The snippet of the docs, on a new site's labelled and unlabelled subjects."""
    text = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    table = simulate_conversion(5).table.astype(str)
    site = table["SITE"].value_counts().index[0]
    table = table[(table["SITE"] == site) & (table["VISCODE"] == "bl")].drop(columns=["VISCODE"])
    label = [str(i % 2) for i in range(10)]
    table.iloc[:10].assign(label=label).to_csv(tmp_path / "labelled.csv", index=False)
    table.iloc[10:].to_csv(tmp_path / "new.csv", index=False)
    monkeypatch.chdir(tmp_path)
    names: dict = {"bundle": str(ROOT)}
    exec(compile(code, "README.md", "exec"), names)
    assert names["probability"].shape == (len(table) - 10,) and bool(names["probability"].isfinite().all())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="SITE"), "lacks the columns"),
        (lambda t: t.assign(MMSE_bl="poor"), "which is no number"),
        (lambda t: pd.concat([t, t.iloc[:3].assign(AGE=70.5)]), "twice"),
        (lambda t: t.assign(DX="MCI"), "have the label 0"),
        (lambda t: t[t["RID"].isin(t["RID"].unique()[:5])], "needs as many subjects|have the label"),
    ],
)
def test_a_bad_table_ends_training_with_a_sentence(tmp_path, change, message):
    change(simulate_conversion(5).table).to_csv(tmp_path / "table.csv", index=False)
    parser = StudyBundle(ROOT).config("train", "armed", {"dataset_dir": str(tmp_path / "table.csv")})
    with pytest.raises(RuntimeError) as error:
        parser.get_parsed_content("partitions")
    cause = error.value
    while cause.__cause__ is not None:
        cause = cause.__cause__
    assert isinstance(cause, ValueError) and re.search(message, str(cause))


@pytest.mark.parametrize("given", [True, False])
def test_a_study_of_which_nobody_was_trained_on_is_evaluated(trained, given, tmp_path):
    """External validation: there are no training subjects to count."""
    simulate_conversion(4).write(tmp_path)
    data = {"dataset_dir": str(tmp_path / "ADNIMERGE.csv")} if given else {"data_seed": 4}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of subjects and sites of the same names
        prepare(tmp_path / "out", "evaluate", ckpt_path=str(trained() / "model.pt"), **data).run()
    assert set(pd.read_csv(tmp_path / "out" / "evaluated_predictions.csv")["partition"]) == {"unseen"}
