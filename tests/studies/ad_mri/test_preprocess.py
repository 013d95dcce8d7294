# Copyright (c) the monai_armed authors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from monai.bundle import ConfigParser

from monai_armed.__main__ import main
from monai_armed.bundle import find_bundle
from monai_armed.data import load_csv_datalist
from monai_armed.studies.ad_mri import preprocess as app
from monai_armed.transforms import LoadVolumed

COLIN = Path("/usr/share/mricron/templates/ch2.nii.gz")
ABSENT = [name for name in ("ants", "deepbet", "nilearn") if find_spec(name) is None]


def write_tree(root, scans, affine=None):
    """A BIDS tree of the volumes, two sites, both diagnoses."""
    rows = ["participant_id\tsite\tdiagnosis"]
    for index, (name, volume) in enumerate(scans.items()):
        file = root / f"sub-{name}" / "anat" / f"sub-{name}_T1w.nii.gz"
        file.parent.mkdir(parents=True)
        placed = np.diag([4.0, 4.0, 4.0, 1.0]) if affine is None else affine
        nib.save(nib.Nifti1Image(np.ascontiguousarray(volume), placed), file)
        rows.append(f"sub-{name}\tS{index % 2}\t{'AD' if index // 2 % 2 else 'CN'}")
    (root / "participants.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def strip(image):
    brain = image.clone()
    brain.meta["brain_volume"] = float(image.max())  # so that a test can say the volume
    return brain


def register(image):
    result = image.clone()
    result.affine = torch.tensor([[4.0, 0, 0, -60], [0, 4, 0, -60], [0, 0, 4, -60], [0, 0, 0, 1]])
    result.meta["registration"] = {"similarity": float(image.min()) / 100, "turned": False}
    return result


@pytest.fixture
def quick(monkeypatch):
    """The command without deepbet and ANTs: the brightest voxel tells the brain volume, the darkest the similarity."""
    calls = []

    def load(data):
        calls.append(Path(data["image"]).name)
        return LoadVolumed("image", ensure_channel_first=True)(data)

    monkeypatch.setattr(app, "_transforms", lambda registration: (load, strip, register))
    return calls


def volume(similarity=90, size=1400):
    values = np.random.default_rng(0).uniform(similarity + 1, size - 1, (30, 30, 30)).astype(np.float32)
    values[15, 15, 15], values[14, 15, 15] = similarity, size
    return values


def test_one_command_makes_what_the_bundle_trains_on(tmp_path, quick, capsys):
    write_tree(tmp_path / "raw", {f"{n:02d}": volume() for n in range(20)})
    out = tmp_path / "out"
    assert main(["preprocess", "--dataset_dir", str(tmp_path / "raw"), "--output_dir", str(out)]) == 0
    assert "20 scans: 20 ok, 0 turned, 0 left out" in capsys.readouterr().out
    assert len(load_csv_datalist(out / "datalist.csv")) == 20
    assert len(list((out / "slices").glob("*.png"))) == 20
    assert (out / "quality_1.png").is_file()
    parser = ConfigParser()
    parser.read_config(find_bundle("armed_ad_mri") / "configs" / "train.json")
    parser.update({"dataset_dir": str(out), "output_dir": str(tmp_path / "run"), "device": "$torch.device('cpu')"})
    batch = next(iter(parser.get_parsed_content("train#dataloader")))
    assert batch["image"].shape[1:] == (1, 80, 80)
    assert batch["image"].std() > 0
    assert parser.get_parsed_content("sites") == ["S0", "S1"]


def test_bad_scans_are_named_and_do_not_stop_the_rest(tmp_path, quick):
    scans = {"good": volume(), "legs": volume(similarity=20), "voxel": volume(size=9000), "cut": volume()}
    write_tree(tmp_path / "raw", scans)
    cut = tmp_path / "raw" / "sub-cut" / "anat" / "sub-cut_T1w.nii.gz"
    cut.write_bytes(cut.read_bytes()[:2000])
    table = app.preprocess(tmp_path / "raw", tmp_path / "out").set_index("scan")
    table.index = [name.split("/")[0] for name in table.index]
    assert table["status"].to_dict() == {
        "sub-cut": "left out",
        "sub-good": "ok",
        "sub-legs": "left out",
        "sub-voxel": "left out",
    }
    assert "cannot be read" in table.loc["sub-cut", "reason"]
    assert "similarity with the template is 0.20" in table.loc["sub-legs", "reason"]
    assert "9000 ml" in table.loc["sub-voxel", "reason"]
    listed = pd.read_csv(tmp_path / "out" / "datalist.csv")
    assert listed["subject"].tolist() == ["sub-good"]
    assert [p.name for p in (tmp_path / "out").rglob("*.nii.gz")] == ["sub-good_desc-brain_T1w.nii.gz"]


def test_what_is_done_is_not_done_again(tmp_path, quick):
    write_tree(tmp_path / "raw", {"a": volume(), "b": volume(similarity=20), "c": volume()})
    before = app.preprocess(tmp_path / "raw", tmp_path / "out")
    done = len(quick)
    pd.testing.assert_frame_equal(app.preprocess(tmp_path / "raw", tmp_path / "out"), before)
    assert len(quick) == done
    (tmp_path / "out" / "sub-a" / "anat" / "sub-a_desc-brain_T1w.nii.gz").unlink()
    os.utime(tmp_path / "raw" / "sub-c" / "anat" / "sub-c_T1w.nii.gz", (1, 1))
    app.preprocess(tmp_path / "raw", tmp_path / "out")
    assert quick[done:] == ["sub-a_T1w.nii.gz", "sub-c_T1w.nii.gz"]


def test_scans_that_are_gone_or_of_no_participant_are_told_and_not_listed(tmp_path, quick, capsys):
    write_tree(tmp_path / "raw", {"a": volume(), "b": volume(), "c": volume()})
    app.preprocess(tmp_path / "raw", tmp_path / "out")
    (tmp_path / "raw" / "sub-b" / "anat" / "sub-b_T1w.nii.gz").unlink()
    participants = tmp_path / "raw" / "participants.tsv"
    lines = participants.read_text().splitlines(keepends=True)
    participants.write_text("".join(line for line in lines if not line.startswith("sub-c")))
    capsys.readouterr()
    app.preprocess(tmp_path / "raw", tmp_path / "out")
    assert pd.read_csv(tmp_path / "out" / "datalist.csv")["subject"].tolist() == ["sub-a"]
    said = capsys.readouterr().out
    assert "1 volumes have no row in participants.tsv and are not in datalist.csv (first: sub-c/" in said
    assert "1 volumes are of scans that are gone and not in datalist.csv: delete them (first: sub-b/" in said


def test_two_scans_with_the_same_results_are_refused(tmp_path, quick):
    write_tree(tmp_path / "raw", {"a": volume()})
    anat = tmp_path / "raw" / "sub-a" / "anat"
    (anat / "sub-a_T1w.nii").write_bytes(b"")
    with pytest.raises(ValueError, match=r"sub-a_T1w.nii(.gz)? and .* would both become sub-a/anat/sub-a_desc-brain"):
        app.preprocess(tmp_path / "raw", tmp_path / "out")
    (anat / "sub-a_T1w.nii").unlink()
    for session in ("ses-1", "ses-2"):
        shutil.copytree(anat, tmp_path / "raw" / "sub-a" / session / "anat")
    with pytest.raises(ValueError, match=r"would both become slices/sub-a_T1w.png: keep one"):
        app.preprocess(tmp_path / "raw", tmp_path / "out")
    assert not quick and not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file is a file: give a folder"):
        app.preprocess(tmp_path / "raw", tmp_path / "file")


def test_an_error_that_is_not_the_scans_is_tried_again(tmp_path, quick, monkeypatch):
    write_tree(tmp_path / "raw", {"a": volume()})
    load, _, _ = app._transforms("affine")

    def fail(image):
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(app, "_transforms", lambda registration: (load, fail, register))
        table = app.preprocess(tmp_path / "raw", tmp_path / "out")
    assert table["reason"].tolist() == ["MemoryError: no room"]
    assert app.preprocess(tmp_path / "raw", tmp_path / "out")["status"].tolist() == ["ok"]


def die_on_b(task):
    if task.scan.name == "b":
        os._exit(9)
    return {"scan": task.scan.name, "status": "ok", "reason": ""}


@pytest.mark.slow
def test_a_killed_process_takes_no_other_scan_with_it(tmp_path):
    tasks = [app.ScanTask(tmp_path / name, tmp_path, tmp_path / "out", "affine") for name in "abc"]
    found = {task.scan.name: record["status"] for task, record in app._work(die_on_b, tasks, 2)}
    assert found == {"a": "ok", "b": "left out", "c": "ok"}


def test_wrong_folders_are_told_in_one_sentence(tmp_path, capsys):
    command = ["preprocess", "--dataset_dir", str(tmp_path), "--output_dir"]
    assert main([*command, str(tmp_path)]) == 2
    assert "cannot go where the raw scans are" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "out")]) == 2
    assert "no scan sub-*" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(bool(ABSENT), reason=f"preprocessing needs {ABSENT}")
@pytest.mark.skipif(not COLIN.is_file(), reason="Colin27 is in Debian's package mricron-data")
def test_a_real_head_passes_and_noise_is_left_out(tmp_path):
    colin = nib.load(COLIN)
    noise = np.abs(np.random.default_rng(0).normal(0, 50, colin.shape)).astype(np.float32)
    write_tree(tmp_path / "raw", {"colin": np.asarray(colin.dataobj), "noise": noise}, colin.affine)
    table = app.preprocess(tmp_path / "raw", tmp_path / "out")
    assert table["status"].tolist() == ["ok", "left out"]
    assert table["cpu_seconds"].max() < 180
    brain = nib.load(tmp_path / "out" / "sub-colin" / "anat" / "sub-colin_desc-brain_T1w.nii.gz")
    lengths = np.linalg.norm(brain.affine[:3, :3], axis=0)
    np.testing.assert_allclose(lengths, 1.0, atol=1e-3)  # turned and shifted, not scaled
