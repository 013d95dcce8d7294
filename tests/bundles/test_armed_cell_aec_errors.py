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
"""The bundle of the cell images tells in one sentence what is wrong with its input, or does what its docs say."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from monai_armed.bundle import load_part
from monai_armed.networks.nets import AEC, ARMEDAEC, CNN
from monai_armed.studies.cells import cell_partitions, read_cells
from monai_armed.studies.cells.evaluation import evaluate_cells
from monai_armed.studies.cells.inference import write_cells
from monai_armed.studies.cells.scores import score_cells
from monai_armed.studies.cells.simulator import simulate_cells
from monai_armed.transforms import LoadCelld

CONFIGS = Path(__file__).resolve().parents[2] / "bundles" / "armed_cell_aec" / "configs"
NAME = "150312_m405_s02_t184_x629_y527_t308_t7Ready_f{:05d}.png"
BATCHES = ["150312", "150413"]
SHAPE = (1, 32, 32)


def network() -> ARMEDAEC:
    torch.manual_seed(0)
    small = {"channels": (4, 4, 4), "latent_channels": 8, "classifier_channels": 4}
    random = AEC(SHAPE, norm=("recon", {"num_clusters": 2}), **small)
    return ARMEDAEC(
        AEC(SHAPE, **small), 2, SHAPE, random, adversary=None, image_classifier=CNN(SHAPE, 2, (4, 4), 4)
    ).eval()


def write_image(path: Path, size: tuple[int, int] = (32, 32), mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = size if mode == "L" else (*size, 3)
    pixels = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def samples(folder: Path, clusters: list[int], labels: list[int]) -> list[dict]:
    """One batch with a frame of each of as many cells."""
    count = len(clusters)
    return [
        {
            "image": torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0)),
            "cluster": torch.tensor(clusters),
            "label": torch.tensor(labels),
            "file": [str(folder / NAME.format(i)) for i in range(count)],
            "cell": [str(i) for i in range(count)],
            "batch": [(BATCHES + ["150603"])[j] for j in clusters],
        }
    ]


def test_an_image_of_another_size_is_resized_and_one_that_is_not_square_is_cut(tmp_path):
    file = write_image(tmp_path / NAME.format(1), size=(48, 100))
    assert LoadCelld("image", 32)({"image": str(file)})["image"].shape == SHAPE


def test_a_size_that_the_network_cannot_halve_is_named():
    with pytest.raises(ValueError, match=r"multiple of 64, as 6 blocks halve it that often, got \(1, 100, 100\)"):
        parser = ConfigParser()
        parser.read_config(str(CONFIGS / "train.json"))
        parser.update({"image_size": 100})
        # MONAI names the component that failed, and hands on our sentence as its cause
        try:
            parser.get_parsed_content("fixed_network")
        except RuntimeError as error:
            raise error.__cause__ from None


def test_a_colour_image(tmp_path):
    file = write_image(tmp_path / NAME.format(1), mode="RGB")
    with pytest.raises(ValueError, match=r"f00001\.png is a colour image; convert it to grey first"):
        LoadCelld("image", 32)({"image": str(file)})


def test_a_file_name_that_does_not_parse(tmp_path):
    write_image(tmp_path / NAME.format(1))
    write_image(tmp_path / "mine.png")
    with pytest.raises(ValueError, match=r"1 of 2 file names .* \(first: mine\.png\); rename them or give a CSV"):
        read_cells(tmp_path)
    pd.DataFrame({"file": [NAME.format(1), "mine.png"], "batch": ["a", "b"], "label": ["low", ""]}).to_csv(
        tmp_path / "cells.csv", index=False
    )
    assert [item["label"] for item in read_cells(tmp_path)] == [0, -1]


def test_a_cell_without_a_label_is_kept(tmp_path):
    table = write_cells_csv(tmp_path, {"a": ["low", "high", ""], "b": ["low", "high", "-1"]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a partition of so few cells lacks a class
        parts = cell_partitions(table)
    items = [item for name in ("train", "val", "test") for item in parts[name]]
    assert sorted(item["label"] for item in items) == [-1, -1, 0, 0, 1, 1]


def write_cells_csv(folder: Path, labels: dict[str, list[str]]) -> Path:
    rows = [
        {"file": f"{batch}{i}.png", "batch": batch, "label": label}
        for batch, of_cells in labels.items()
        for i, label in enumerate(of_cells)
    ]
    for row in rows:
        write_image(folder / row["file"])
    pd.DataFrame(rows).to_csv(folder / "cells.csv", index=False)
    return folder


def test_a_batch_with_one_cell_is_unseen(tmp_path):
    folder = write_cells_csv(tmp_path, {"a": ["low", "high"], "b": ["low", "high"], "c": ["high"]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        parts = cell_partitions(folder)
    assert parts["batches"] == ["a", "b"] and [item["batch"] for item in parts["unseen"]] == ["c"]
    with pytest.raises(ValueError, match=r"seen batches \['c'\] have a single cell; make them unseen"):
        cell_partitions(folder, seen_batches=["a", "c"])


def test_too_few_cells_for_a_measure_leave_it_out_and_the_rest_is_written(tmp_path, capsys):
    """As many batches as test cells, none labelled: no separation, no AUROC; the errors are measured all the same."""
    loaders = {
        "train": samples(tmp_path, [0, 0, 1, 1], [-1] * 4),
        "test": samples(tmp_path, [0, 1], [-1, -1]),
        "unseen": samples(tmp_path, [-1], [1]),
    }
    figures = evaluate_cells(network(), loaders, BATCHES, tmp_path / "out")
    printed = capsys.readouterr().out
    assert "the separation of the latents by batch is not measured: 2 samples" in printed
    for partition in ("test", "unseen"):
        assert printed.count(f"the AUROC of {partition} cells is not measured: it needs two labelled cells") == 1
    assert not [name for name in figures if name.startswith(("davies", "calinski"))]
    table = pd.read_csv(tmp_path / "out" / "metrics.csv")
    assert (table["mse"] > 0).all() and table["auroc"].isna().all() and len(table) == 6
    assert len(pd.read_csv(tmp_path / "out" / "evaluated_predictions.csv")) == 7
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()).keys() == figures.keys()


def test_figures_for_the_comparison_of_models(tmp_path):
    loaders = {
        "train": samples(tmp_path, [0, 0, 1, 1], [0, 1, 0, 1]),
        "test": samples(tmp_path, [0, 0, 0, 1, 1, 1], [0, 1, 0, 1, 0, 1]),
        "unseen": samples(tmp_path, [-1, -1, -1, -1], [1, 0, 1, 0]),
    }
    rows = score_cells(evaluate_cells(network(), loaders, BATCHES, tmp_path / "out"))
    values = {(row["partition"], row["prediction"], row["metric"]): row["value"] for row in rows}
    assert len(values) == len(rows) and rows[0]["prediction"] == "mixed"
    for partition in ("seen", "unseen"):
        for prediction in ("mixed", "fixed", "randomized"):
            assert values[partition, prediction, "mse"] > 0
            low, auroc, high = (values[partition, prediction, name] for name in ("auroc_low", "auroc", "auroc_high"))
            assert low <= auroc <= high
    index, null, gap = (values["seen", "mixed", f"calinski_harabasz{end}"] for end in ("", "_null", "_gap"))
    assert gap == index - null


@pytest.mark.parametrize("labels, measured", [([1] * 6, False), ([1, 1, 0], False), ([1, 1, 0, 0], True), ([1], False)])
def test_cells_of_one_class_or_a_handful_have_no_auroc_and_a_sentence_says_it(tmp_path, capsys, labels, measured):
    loaders = {
        "train": samples(tmp_path, [0, 0, 1, 1], [0, 1, 0, 1]),
        "test": samples(tmp_path, [i % 2 for i in range(len(labels))], labels),
    }
    figures = evaluate_cells(network(), loaders, BATCHES, tmp_path / "out")
    assert np.isfinite([figures[f"test_fixed_{name}"] for name in ("auroc", "low", "high")]).all() == measured
    assert figures["test_fixed_mse"] > 0
    assert ("the AUROC of test cells is not measured" in capsys.readouterr().out) != measured


def test_the_label_that_a_probability_is_of_is_told(tmp_path, capsys):
    net = network()
    write_cells(net, samples(tmp_path, [0, 1], [0, 1]), BATCHES, tmp_path / "out", ["150312"])
    assert "predictions.csv (probability of label 1)" in capsys.readouterr().out
    torch.nn.init.constant_(net.mixed_classifier[-1].bias, 99.0)  # logits of label 1, as in training
    write_cells(net, samples(tmp_path, [0, 1], [0, 1]), BATCHES, tmp_path / "out", ["150312"])
    assert (pd.read_csv(tmp_path / "out" / "predictions.csv")["probability"] > 0.99).all()


def test_a_batch_to_show_images_as_that_is_not_known(tmp_path):
    with pytest.raises(ValueError, match=r"as_batches names \['150603'\], but the model's batches are \['150312'"):
        write_cells(network(), samples(tmp_path, [0], [0]), BATCHES, tmp_path / "out", ["150312", "150603"])
    assert not (tmp_path / "out").exists()


def test_simulating_into_a_folder_with_something_else(tmp_path):
    write_image(tmp_path / "data" / "mine.png")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="data"):
        simulate_cells(tmp_path / "data", size=32, progress=False)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_frozen_part_of_another_size(tmp_path):
    torch.save(network().state_dict(), tmp_path / "model.pt")
    shutil.copy(tmp_path / "model.pt", tmp_path / "other.pt")
    wider = network()
    wider.fixed = AEC(SHAPE, channels=(4, 4, 8), latent_channels=8, classifier_channels=4)
    with pytest.raises(ValueError, match=r"other\.pt is of another shape"):
        load_part(wider, "fixed", tmp_path / "other.pt")
    with pytest.raises(FileNotFoundError, match=r"no model .*none\.pt to take the part 'fixed' from.*--fixed_path"):
        load_part(wider, "fixed", tmp_path / "none.pt")
