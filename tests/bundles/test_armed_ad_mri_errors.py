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

"""The bundle of the AD study tells in one sentence what is wrong with its input."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from ad_mri_runs import command, environment, run

from monai_armed.bundle.plain_errors import print_plainly

pytestmark = pytest.mark.usefixtures("untouched_interpreter")


def sentence(capsys, *words: str):
    """Context: what is raised in it is printed as one sentence with these words."""

    class Check:
        def __enter__(self):
            return self

        def __exit__(self, kind, error, trace):
            assert kind is not None, "nothing was raised"
            capsys.readouterr()
            print_plainly(kind, error, trace)
            lines = capsys.readouterr().err.strip().splitlines()
            assert len(lines) == 2 and lines[0].startswith("error: ") and "MONAI_ARMED_TRACEBACK" in lines[1], lines
            for word in words:
                assert word in lines[0], lines[0]
            return True

    return Check()


@pytest.fixture
def broken(study, tmp_path):
    """A copy of the study, to be broken."""
    return Path(shutil.copytree(study, tmp_path / "broken", ignore=shutil.ignore_patterns("derivatives")))


def rewrite(folder: Path, change) -> None:
    table = pd.read_csv(folder / "participants.tsv", sep="\t", dtype=str)
    change(table).to_csv(folder / "participants.tsv", sep="\t", index=False)


def test_missing_folder_ends_the_command_with_a_sentence(tmp_path):
    words = command("train", tmp_path / "out", dataset_dir=tmp_path / "nothing")
    done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"error: dataset folder {tmp_path / 'nothing'} does not exist" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()


def test_no_site_column(broken, tmp_path, capsys):
    rewrite(broken, lambda table: table.drop(columns="site"))
    with sentence(capsys, str(broken / "participants.tsv"), "has no column 'site'"):
        run("train", dataset_dir=str(broken), output_dir=str(tmp_path / "out"))


def test_one_class(broken, tmp_path, capsys):
    rewrite(broken, lambda table: table.assign(diagnosis="CN"))
    with sentence(capsys, "all images have the label 0"):
        run("train", dataset_dir=str(broken), output_dir=str(tmp_path / "out"))


def test_a_partition_with_one_class(broken, tmp_path, capsys):
    rewrite(broken, lambda table: table.assign(diagnosis=["AD"] + ["CN"] * (len(table) - 1)))
    with sentence(capsys, "partition", "would hold no image of class [1]"):
        run("train", dataset_dir=str(broken), output_dir=str(tmp_path / "out"))


def test_truncated_image(image, trained, tmp_path, capsys):
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes(image.read_bytes()[:5000])
    with sentence(capsys, f"image file {cut} cannot be read", "it may be truncated: replace it"):
        run("inference", ckpt_path=str(trained() / "model.pt"), dataset_dir=str(cut), output_dir=str(tmp_path / "out"))


def test_images_that_cannot_be_read_cost_no_other_row(image, trained, tmp_path, capsys):
    for name in ("a", "b", "c", "d"):
        (tmp_path / "scans").mkdir(exist_ok=True)
        shutil.copy(image, tmp_path / "scans" / f"{name}.nii.gz")
    (tmp_path / "scans" / "b.nii.gz").write_bytes(image.read_bytes()[:5000])
    (tmp_path / "scans" / "d.nii.gz").unlink()
    (tmp_path / "scans" / "d.nii.gz").symlink_to(tmp_path / "nowhere")
    settings = {"ckpt_path": str(trained() / "model.pt"), "dataset_dir": str(tmp_path / "scans")}
    with sentence(capsys, "2 of 4 samples could not be used, the other 2 were (first:", "b.nii.gz cannot be read"):
        run("inference", output_dir=str(tmp_path / "out"), **settings)
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert [Path(file).name for file in table["file"]] == ["a.nii.gz", "c.nii.gz"]
    left_out = pd.read_csv(tmp_path / "out" / "left_out.csv")
    assert [Path(file).name for file in left_out["file"]] == ["b.nii.gz", "d.nii.gz"]
    assert "which does not exist: fetch it" in left_out["reason"][1]


def test_image_full_of_nan(broken, tmp_path, capsys):
    image = nib.load(sorted(broken.glob("sub-0*/**/*_T1w.nii.gz"))[0])
    for file in broken.glob("sub-0*/**/*_T1w.nii.gz"):
        nib.save(nib.Nifti1Image(np.full(image.shape, np.nan, dtype=np.float32), image.affine), file)
    with sentence(capsys, "image file", "_T1w.nii.gz has", "NaN or infinite values", "replace it"):
        run("train", dataset_dir=str(broken), output_dir=str(tmp_path / "out"))


def test_unknown_site_name(image, trained, tmp_path, capsys):
    with sentence(capsys, "site 'nosuch' is not one of the known ones", "'002'"):
        weights = str(trained() / "model.pt")
        run("inference", ckpt_path=weights, dataset_dir=str(image), output_dir=str(tmp_path), site="nosuch")


def test_unseen_sites_without_a_policy(options, trained, tmp_path, capsys):
    with sentence(capsys, "site 'U0", "is not one of the known ones"):
        weights = str(trained() / "model.pt")
        run("evaluate", ckpt_path=weights, output_dir=str(tmp_path), unknown_sites="error", **options)


def test_cluster_index_out_of_range(inference_network, capsys):
    with sentence(capsys, "cluster index 12 is out of range", "0 to 11"):
        inference_network(torch.rand(2, 1, 80, 80), torch.tensor([0, 12]))


def test_checkpoint_of_another_shape(options, trained, tmp_path, capsys):
    with sentence(capsys, str(trained() / "model.pt"), "another shape", "config"):
        weights = str(trained() / "model.pt")
        run("evaluate", ckpt_path=weights, output_dir=str(tmp_path), **{"base_network#dense_channels": 32}, **options)


def test_checkpoint_of_another_model(options, trained, tmp_path, capsys):
    with sentence(capsys, "another network"):
        run("evaluate", ckpt_path=str(trained("conventional") / "model.pt"), output_dir=str(tmp_path), **options)


def test_no_checkpoint(options, tmp_path, capsys):
    with sentence(capsys, str(tmp_path / "model.pt"), "--ckpt_path"):
        run("evaluate", ckpt_path=str(tmp_path / "model.pt"), output_dir=str(tmp_path), **options)


def test_output_folder_that_cannot_be_written(study, tmp_path, capsys):
    (tmp_path / "file").write_text("not a folder")
    with sentence(capsys, str(tmp_path / "file"), "output_dir"):
        run("train", dataset_dir=str(study), output_dir=str(tmp_path / "file" / "out"))
