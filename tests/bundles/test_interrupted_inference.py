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

"""An inference that is interrupted goes on where it was, with the shipped weights."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from monai.bundle import ConfigWorkflow
from PIL import Image

from monai_armed.data import KeptRows

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
IMAGES = 7


def images_of(bundle: str, folder: Path) -> Path:
    """Seven images of noise, which the bundle can read."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(IMAGES):
        if bundle == "armed_ad_mri":
            affine = np.diag([1.5, 1.5, 1.5, 1])
            affine[:3, 3] = -82, -9, -60  # mm
            image = nib.Nifti1Image(rng.random((110, 5, 110), dtype=np.float32), affine)
            image.header.set_xyzt_units("mm")
            nib.save(image, folder / f"{i}.nii.gz")
        else:
            Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)).save(folder / f"{i}.png")
    if bundle == "armed_ad_mri":
        return folder
    table = pd.DataFrame({"file": [f"{i}.png" for i in range(IMAGES)], "batch": "new"})
    table.to_csv(folder / "cells.csv", index=False)
    return folder / "cells.csv"


def infer(bundle: str, data: Path, out: Path, **options) -> pd.DataFrame:
    if bundle == "armed_cell_aec":
        options.setdefault("as_batches", [])
    workflow = ConfigWorkflow(
        config_file=str(BUNDLES / bundle / "configs" / "inference.json"),
        workflow_type="infer",
        logging_file=False,
        dataset_dir=str(data),
        output_dir=str(out),
        **{"dataloader#batch_size": 2, **options},
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return pd.read_csv(out / "predictions.csv")


class Interrupted(BaseException):
    """As Ctrl-C, but no other's."""


@pytest.mark.parametrize("bundle", ["armed_ad_mri", "armed_cell_aec"])
def test_an_interrupted_inference_goes_on_where_it_was(bundle, tmp_path, monkeypatch):
    data, batches, add = images_of(bundle, tmp_path / "in"), [], KeptRows.add

    def second_interrupts(self: KeptRows, rows: list) -> None:
        batches.append([Path(row["file"]).name for row in rows])
        if len(batches) == 2:
            raise Interrupted
        add(self, rows)

    monkeypatch.setattr(KeptRows, "add", second_interrupts)
    with pytest.raises(Interrupted):
        infer(bundle, data, tmp_path / "out")
    assert not (tmp_path / "out" / "predictions.csv").exists()
    assert len((tmp_path / "out" / "predictions.unfinished.jsonl").read_text().splitlines()) == 3
    table = infer(bundle, data, tmp_path / "out")
    assert [len(batch) for batch in batches] == [2, 2, 2, 2, 1] and batches[1] == batches[2]
    assert not list((tmp_path / "out").glob("*unfinished*"))
    whole = infer(bundle, data, tmp_path / "whole").drop(columns=["low", "high"], errors="ignore")  # of other draws
    pd.testing.assert_frame_equal(table[whole.columns], whole, rtol=1e-6)
    if bundle == "armed_cell_aec":
        latents = [pd.read_csv(tmp_path / name / "latents.csv") for name in ("out", "whole")]
        pd.testing.assert_frame_equal(*latents, rtol=1e-4, atol=1e-6)


def test_of_other_settings_nothing_is_taken_over(tmp_path, monkeypatch):
    data, batches, add = images_of("armed_cell_aec", tmp_path / "in"), [], KeptRows.add

    def first_is_the_last(self: KeptRows, rows: list) -> None:
        add(self, rows)
        batches.append(len(rows))
        if len(batches) == 1:
            raise Interrupted

    monkeypatch.setattr(KeptRows, "add", first_is_the_last)
    with pytest.raises(Interrupted):
        infer("armed_cell_aec", data, tmp_path / "out")
    infer("armed_cell_aec", data, tmp_path / "out", as_batches=["population"])
    assert sum(batches[1:]) == IMAGES and len(list((tmp_path / "out" / "as_population").iterdir())) == IMAGES
