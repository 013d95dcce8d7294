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

"""Words and columns of one's own reach the reader from every command of the bundles that read tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from monai.bundle import create_workflow
from PIL import Image

from monai_armed.bundle import find_bundle, read_record
from monai_armed.compare.study_bundle import StudyBundle
from monai_armed.studies.mci.simulator import simulate_conversion

SITES, SUBJECTS = ("1", "2", "3"), 12


def rows(words: tuple[str, str], files: list[str]) -> pd.DataFrame:
    """A table of images with columns of another's making."""
    sites = [site for site in SITES for _ in range(SUBJECTS)]
    table = {
        "where": sites,
        "who": [f"s{i}" for i in range(len(sites))],
        "what": [words[i % 2] for i in range(len(sites))],
    }
    return pd.DataFrame({**table, "path": files})


def pictures(folder: Path) -> list[str]:
    names = [f"{i}.png" for i in range(len(SITES) * SUBJECTS)]
    for i, name in enumerate(names):
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(folder / name)
    return names


def ad_mri(folder: Path) -> tuple[Path, dict]:
    files = [str(folder / f"{i}.nii.gz") for i in range(len(SITES) * SUBJECTS)]
    for i, file in enumerate(files):
        Path(file).write_bytes(bytes([i]))  # which nobody opens here
    rows(("Control", "Dementia"), files).to_csv(folder / "own.csv", index=False)
    return folder / "own.csv", {"diagnoses": {"Dementia": 1, "Control": 0}, **COLUMNS}


def cell_aec(folder: Path) -> tuple[Path, dict]:
    rows(("benign", "metastatic"), pictures(folder)).to_csv(folder / "own.csv", index=False)
    return folder / "own.csv", {"diagnoses": {"metastatic": 1, "benign": 0}, **COLUMNS}


def mci(folder: Path) -> tuple[Path, dict]:
    table = simulate_conversion(0).table.rename(columns={"SITE": "where", "PTID": "who", "DX": "what"})
    table.replace({"what": {"Dementia": "worse"}}).to_csv(folder / "own.csv", index=False)
    columns = {name: column for name, column in COLUMNS.items() if name != "image_column"}
    return folder / "own.csv", {"diagnoses": {"worse": 1, "MCI": 0}, **columns}


COLUMNS = {"diagnosis_column": "what", "site_column": "where", "subject_column": "who", "image_column": "path"}
DATA = {"ad_mri": ad_mri, "cell_aec": cell_aec, "mci": mci}


@pytest.fixture(params=DATA)
def study(request, tmp_path):
    """Name of a bundle, a table, and what is to be said of it."""
    return request.param, *DATA[request.param](tmp_path)


def config(bundle: str, step: str, table: Path, options: dict, **others):
    files = [str(find_bundle(f"armed_{bundle}") / "configs" / f"{name}.json") for name in step.split("+")]
    return create_workflow(config_file=files, logging_file=False, dataset_dir=str(table), **options, **others).parser


@pytest.mark.filterwarnings("ignore")
def test_training_and_evaluation_read_what_they_are_told(study):
    bundle, table, options = study
    names = "batches" if bundle == "cell_aec" else "sites"
    train = config(bundle, "train", table, options)
    partitions = train.get_parsed_content("partitions")
    assert {item["label"] for item in partitions["train"]} == {0, 1}
    assert train.get_parsed_content(names) == partitions[names]
    shipped = find_bundle(f"armed_{bundle}") / "models" / "model.pt"
    evaluate = config(bundle, "train+evaluate", table, options, ckpt_path=str(shipped))
    tested = evaluate.get_parsed_content("partitions")["unseen"]
    assert {item["label"] for item in tested} == {0, 1} and len(tested) >= len(partitions["train"])


@pytest.mark.filterwarnings("ignore")
def test_inference_and_comparison_read_what_they_are_told(study):
    bundle, table, options = study
    overrides = {"dataset_dir": str(table), **options}
    parser = StudyBundle(find_bundle(f"armed_{bundle}"), overrides=overrides).config("train", "armed")
    assert {item["label"] for item in parser.get_parsed_content("partitions")["train"]} == {0, 1}
    if bundle == "ad_mri":
        return  # its inference reads images and no table
    shipped = find_bundle(f"armed_{bundle}") / "models" / "model.pt"
    inference = config(bundle, "inference", table, options, ckpt_path=str(shipped))
    items = inference.get_parsed_content("dataset#data")
    assert len(items) == len(SITES) * SUBJECTS if bundle == "cell_aec" else len(items) > 300
    key, known = ("batch", SITES) if bundle == "cell_aec" else ("site", read_record(shipped)["clusters"])
    assert {item[key] for item in items} >= set(known)


@pytest.mark.filterwarnings("ignore")
def test_without_a_word_the_usual_columns_are_missing(study):
    bundle, table, _ = study
    parser = config(bundle, "train", table, {})
    with pytest.raises(RuntimeError) as error:
        parser.get_parsed_content("partitions")
    assert "column" in str(error.value.__cause__)
