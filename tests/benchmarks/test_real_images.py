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

"""The benchmark on real images, on simulated ones: it reads what people download, goes on where it was, and scores."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "real_images"
NAMES = ("dermoscopy", "training", "scores", "rows", "results", "run")
SOURCES = {"camera_a": 0.5, "camera_b": 0.25, "camera_c": 0.4}  # share of malignant lesions


@pytest.fixture(scope="module")
def modules(benchmark_modules):
    """The benchmark's modules by name."""
    return benchmark_modules(FOLDER, NAMES)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """80 simulated lesions a source: 16 pixels, tinted by the camera, darker in the middle where malignant."""
    rows = []
    for source, share in SOURCES.items():
        for i in range(80):
            dx = ("mel", "bcc", "akiec")[i % 3] if i < 80 * share else "nv"
            rows.append({"image_id": f"ISIC_{len(rows):07d}", "lesion_id": f"{source}_{i}", "dx": dx, "source": source})
    rows.append({**rows[0], "image_id": "ISIC_0009999"})  # a second image of the first lesion
    return pd.DataFrame(rows)


def _write_image(row: pd.Series, path: Path) -> None:
    random = np.random.default_rng(int(row["image_id"][5:]))
    pixels = 150 + 25 * random.standard_normal((16, 16, 3))
    pixels[..., list(SOURCES).index(row["source"])] += 60
    if row["dx"] != "nv":
        pixels[4:12, 4:12] -= 60
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def as_listed(table, tmp_path_factory) -> Path:
    """A folder with images.csv."""
    folder = tmp_path_factory.mktemp("listed")
    table = table.assign(file=["images/" + name + ".jpg" for name in table["image_id"]])
    for _, row in table.iterrows():
        _write_image(row, folder / row["file"])
    table.drop(columns="image_id").to_csv(folder / "images.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def as_downloaded(table, tmp_path_factory) -> Path:
    """HAM10000 as it comes: a table without an ending, and images in two folders."""
    folder = tmp_path_factory.mktemp("downloaded")
    for i, row in table.iterrows():
        _write_image(row, folder / f"HAM10000_images_part_{1 + i % 2}" / f"{row['image_id']}.jpg")
    table.rename(columns={"source": "dataset"}).to_csv(folder / "HAM10000_metadata", index=False)
    return folder


def test_both_layouts_are_read_and_each_lesion_once(modules, as_listed, as_downloaded):
    read = modules["dermoscopy"].read_dermoscopy
    listed, downloaded = read(as_listed), read(as_downloaded)
    assert len(listed) == len(downloaded) == 240
    assert list(listed["source"]) == list(downloaded["source"]) and list(listed["label"]) == list(downloaded["label"])
    assert listed.groupby("source")["label"].mean().to_dict() == SOURCES


def test_what_is_missing_is_said(modules, as_downloaded, tmp_path):
    read = modules["dermoscopy"].read_dermoscopy
    with pytest.raises(FileNotFoundError, match="has no table of images"):
        read(tmp_path)
    table = pd.read_csv(as_downloaded / "HAM10000_metadata")
    table.to_csv(tmp_path / "HAM10000_metadata", index=False)
    with pytest.raises(FileNotFoundError, match="241 images of HAM10000_metadata are not in"):
        read(tmp_path)
    table.drop(columns="dataset").to_csv(tmp_path / "HAM10000_metadata", index=False)
    with pytest.raises(ValueError, match="lacks source; the column 'dataset'"):
        read(tmp_path)


def test_the_left_out_source_is_in_no_part_of_the_training(modules, as_listed):
    table = modules["dermoscopy"].read_dermoscopy(as_listed)
    parts = modules["dermoscopy"].leave_one_out(table, "camera_b", seed=3)
    assert {name: len(part) for name, part in parts.items()} == {"train": 96, "val": 32, "test": 32, "unseen": 80}
    assert set(parts["unseen"]["source"]) == {"camera_b"} and set(parts["unseen"]["cluster"]) == {-1}
    for name in ("train", "val", "test"):
        assert set(parts[name]["source"]) == {"camera_a", "camera_c"} and set(parts[name]["cluster"]) == {0, 1}
    images = pd.concat(parts.values())["image"]
    assert len(images) == images.nunique() == 240


def test_scores_of_known_predictions(modules):
    label, cluster = np.tile([0, 0, 1, 1], 30), np.repeat([0, 1, 2], 40)
    parts = {
        "test": pd.DataFrame({"label": label, "cluster": cluster}),
        "unseen": pd.DataFrame({"label": [0, 1, 0, 1], "cluster": [-1] * 4}),
    }
    telling = np.where(label == 1, 1.0, 0.0) - 10.0 * cluster  # perfect within a source, and names the source
    score, prediction = modules["scores"].score, modules["scores"].Prediction
    found = score(prediction(telling, np.array([1.0, 0.0, 1.0, 0.5]), np.where(label == 1, 9.0, -9.0)), parts)
    assert found["within source"] == 1 and found["seen mixed"] == 1 and found["unseen"] == 0
    assert found["unseen low"] == found["unseen high"] == 0  # DeLong's interval of a perfect order has no width
    assert found["leak"] == pytest.approx((1 + 0.5 + 1) / 3)  # the middle one of three is told from one side alone
    assert found["seen fixed"] == pytest.approx((3 + 3) / 9) and found["calibration error"] < 1e-3
    opposite = score(prediction(-telling, np.array([1.0, 0.0, 1.0, 0.5]), None), parts)
    assert opposite["leak"] == pytest.approx(found["leak"]) and np.isnan(opposite["seen mixed"])


def test_its_bundle_trains_and_evaluates_what_was_left_out_of_the_training(modules, as_listed, tmp_path):
    def run(*names: str, **more) -> None:
        parser = ConfigParser()
        parser.read_config([str(FOLDER / "bundle" / "configs" / f"{name}.json") for name in names])
        places = {"dataset_dir": str(as_listed), "output_dir": str(tmp_path)}
        for name, value in {**places, "image_size": 16, "batch_size": 16, "max_epochs": 1, **more}.items():
            parser[name] = value
        parser.get_parsed_content("run")

    run("train", "erased", left_out="camera_b")
    run("train", "evaluate", "erased", seed=3)  # the model's test images, also with another seed of the split
    predictions = pd.read_csv(tmp_path / "evaluated_predictions.csv")
    mixed = predictions[predictions["prediction"] == predictions["prediction"][0]]
    assert mixed["site"].value_counts().to_dict() == {"camera_b": 80, "camera_a": 16, "camera_c": 16}


def _run(modules, monkeypatch, data: Path, out: Path, *options: str) -> pd.DataFrame:
    small = ["--size", "16", "--epochs", "1", "--seeds", "1", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["run.py", "--data", str(data), "--out", str(out), *small, *options])
    modules["run"].main()
    return pd.read_csv(out / "results.csv")


def test_it_runs_and_goes_on_where_it_was(modules, as_downloaded, tmp_path, monkeypatch):
    trainings = ("--trainings", "colour augmentation")
    results = _run(modules, monkeypatch, as_downloaded, tmp_path, *trainings)
    rows = list(modules["rows"].ROWS["colour augmentation"])
    assert set(results["model"]) == set(rows) and len(results) == 3 * len(rows)
    assert set(results["left out"]) == set(SOURCES)
    armed = results["model"].str.contains("ARMED")
    assert results.loc[armed, "seen mixed"].notna().all() and results["leak"].between(0.5, 1).all()
    assert (tmp_path / "trade_off.png").stat().st_size > 10_000
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert text.count("\n| ") == 1 + len(rows) and "| colour augmentation | 3 | " in text
    assert "p_corrected" in (tmp_path / "tests.csv").read_text(encoding="utf-8")

    def trained_again(*_args):
        raise AssertionError("a network that is there was trained again")

    monkeypatch.setattr(modules["run"], "train", trained_again)
    again = _run(modules, monkeypatch, as_downloaded, tmp_path, *trainings)
    assert (results["training seconds"] > 0).all()
    pd.testing.assert_frame_equal(again.drop(columns="further seconds"), results.drop(columns="further seconds"))

    # what an earlier version has kept says neither how long it took nor of what images it is
    for note in tmp_path.glob("networks_*/*.json"):
        note.unlink()
    assert _run(modules, monkeypatch, as_downloaded, tmp_path, *trainings)["training seconds"].isna().all()


def test_networks_of_other_images_are_not_taken(modules, as_downloaded, as_listed, tmp_path, monkeypatch):
    trainings = ("--trainings", "balanced sampling")
    results = _run(modules, monkeypatch, as_downloaded, tmp_path / "out", *trainings)
    moved = shutil.copytree(as_listed, tmp_path / "moved")
    again = _run(modules, monkeypatch, moved, tmp_path / "out", *trainings)  # the same images elsewhere
    assert again["training seconds"].tolist() == results["training seconds"].tolist()
    table = pd.read_csv(moved / "images.csv")
    table[table["lesion_id"] != "camera_b_7"].to_csv(moved / "images.csv", index=False)
    with pytest.raises(ValueError, match=r"was trained on other images than those of .*moved: give another --out"):
        _run(modules, monkeypatch, moved, tmp_path / "out", *trainings)


@pytest.fixture(scope="module")
def training_part(modules, as_listed):
    """Rows and images of two sources."""
    table = modules["dermoscopy"].read_dermoscopy(as_listed)
    part = modules["dermoscopy"].leave_one_out(table, "camera_a", seed=0)["train"]
    return part, modules["training"].read_images(part, 16)


@pytest.mark.parametrize("name", ["colour augmentation", "balanced sampling", "GroupDRO", "CORAL"])
def test_every_rival_trains(modules, training_part, name):
    part, images = training_part
    network = modules["training"].train(name, part, images, 16, 1, 0, "cpu")
    torch.manual_seed(0)
    untrained = modules["training"].build_network(16)
    weights, before = (torch.cat([p.ravel() for p in net.parameters()]) for net in (network, untrained))
    assert weights.isfinite().all() and not torch.equal(weights, before)
    assert not network.training and not network.dense._forward_hooks


def test_every_row_is_made_of_a_trained_network(modules, training_part):
    part, images = training_part
    parts = {"train": part, "val": part[:40], "test": part[40:], "unseen": part[:7].assign(cluster=-1)}
    torch.manual_seed(0)
    network = modules["training"].build_network(16).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    latents = modules["rows"].read_latents(network, parts, images, "cpu")
    with torch.no_grad():
        logit = network(modules["training"].eval_batches(parts["unseen"], images)[0]["image"]).squeeze(1)
    np.testing.assert_allclose(latents["unseen"].logit, logit, rtol=1e-4, atol=1e-5)
    for row, make in modules["rows"].ROWS["conventional"].items():
        made = make(network.head, latents)
        assert made.fixed.shape == (len(part) - 40,) and made.unseen.shape == (7,), row
        assert (made.mixed is not None) == ("ARMED" in row or "intercept" in row), row
        assert np.isfinite(np.concatenate([part for part in made if part is not None])).all(), row
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), "a row has changed the network that the next one is made of"


def test_the_groups_may_be_of_many_sources(modules):
    """The worst group counts ever more, however many sources there are."""
    loss = modules["training"].GroupDRO()
    label, cluster = torch.tensor([[0.0], [1.0]] * 6), torch.arange(12) // 2
    logit = torch.zeros(12, 1)
    logit[cluster == 5] = 4 * (1 - 2 * label[cluster == 5])  # wrong in the sixth source
    values = [float(loss(logit, label, cluster, logit)) for _ in range(200)]
    assert (5 * np.log(2) + 4.02) / 6 < values[0] < 1.3  # the mean of the sources, and one step towards the worst
    assert values[-1] > 3.5 and all(np.diff(values) > 0)
