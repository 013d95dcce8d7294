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
    missing = {"brain": 0.0, "top": 0.0}
    result.meta["registration"] = {"similarity": float(image.min()) / 100, "turned": False, "missing": missing}
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


def run(tmp_path, **options):
    """The quality table by subject."""
    table = app.preprocess(tmp_path / "raw", tmp_path / "out", **options)
    return table.set_index(table["scan"].str.split("/").str[0].rename(None))


def listed(tmp_path):
    return pd.read_csv(tmp_path / "out" / "datalist.csv")["subject"].tolist()


def scan_of(tmp_path, name):
    return tmp_path / "raw" / f"sub-{name}" / "anat" / f"sub-{name}_T1w.nii.gz"


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
    bad = {
        "legs": (volume(similarity=20), "similarity with the template is 0.20, below 0.5: it is no T1-weighted head"),
        "voxel": (volume(size=9000), "its brain has 9000 ml, which no human brain has"),
        "monkey": (volume(similarity=20, size=104), "its brain has 104 ml, which no human brain has"),
        "cut": (volume(), "cannot be read"),
        "link": (volume(), "is a link to /nowhere, which does not exist: fetch it"),
        "lost": (volume(), "does not know its orientation"),
        "metres": (volume(), "has voxels of 0.004 x 0.004 x 0.004 mm by its header"),
    }
    write_tree(tmp_path / "raw", {"good": volume(), **{name: values for name, (values, _) in bad.items()}})
    cut, link, lost, metres = (scan_of(tmp_path, name) for name in ("cut", "link", "lost", "metres"))
    cut.write_bytes(cut.read_bytes()[:2000])
    link.unlink()
    link.symlink_to("/nowhere")
    image = nib.load(lost)
    image.set_sform(image.affine, 0)
    image.set_qform(image.affine, 0)
    nib.save(nib.Nifti1Image(image.get_fdata(), None, image.header), lost)
    nib.save(nib.Nifti1Image(volume(), np.diag([0.004, 0.004, 0.004, 1.0])), metres)
    table = run(tmp_path)
    assert table.loc["sub-good", "status"] == "ok" and (table.drop("sub-good")["status"] == "left out").all()
    for name, (_, reason) in bad.items():
        assert reason in table.loc[f"sub-{name}", "reason"]
    assert listed(tmp_path) == ["sub-good"]
    assert [p.name for p in (tmp_path / "out").rglob("*.nii.gz")] == ["sub-good_desc-brain_T1w.nii.gz"]
    saved = pd.read_csv(tmp_path / "out" / "quality.csv")
    assert saved["scan"].tolist() == table["scan"].tolist() and saved["reason"].notna().sum() == len(bad)


def test_a_link_that_was_fetched_is_no_longer_left_out(tmp_path, quick):
    write_tree(tmp_path / "raw", {"a": volume(), "b": volume()})
    link, store = scan_of(tmp_path, "b"), tmp_path / "store.nii.gz"
    link.rename(store)
    link.symlink_to(tmp_path / "not yet")
    assert run(tmp_path)["status"].tolist() == ["ok", "left out"]
    store.rename(tmp_path / "not yet")
    assert run(tmp_path)["status"].tolist() == ["ok", "ok"]


def test_the_least_similarity_and_what_to_keep_are_the_users(tmp_path, quick, capsys):
    write_tree(tmp_path / "raw", {"a": volume(), "b": volume(similarity=49.86), "c": volume(similarity=30)})
    assert run(tmp_path)["status"].tolist() == ["ok", "left out", "left out"]
    assert "its similarity with the template is 0.499, below 0.5:" in capsys.readouterr().out
    done = len(quick)
    table = run(tmp_path, min_similarity=0.4)
    assert table["status"].tolist() == ["ok", "ok", "left out"] and quick[done:] == ["sub-b_T1w.nii.gz"]
    arguments = ["preprocess", "--dataset_dir", str(tmp_path / "raw"), "--output_dir", str(tmp_path / "out")]
    capsys.readouterr()
    assert main([*arguments, "--keep", "sub-[bc]"]) == 0
    assert "3 scans: 1 ok, 0 turned, 2 kept, 0 left out" in capsys.readouterr().out
    assert listed(tmp_path) == ["sub-a", "sub-b", "sub-c"]
    table = pd.read_csv(tmp_path / "out" / "quality.csv")
    assert "0.30, below 0.5" in table["reason"][2] and table["status"][2] == "kept"
    done = len(quick)
    assert run(tmp_path)["status"].tolist() == ["ok", "left out", "left out"]
    assert len(quick) == done and listed(tmp_path) == ["sub-a"]  # judged anew, not done again
    assert len(list((tmp_path / "out").rglob("*.nii.gz"))) == 1
    assert main([*arguments, "--keep", "sub-z*"]) == 2
    assert "keep names 'sub-z*', but there is no such scan" in capsys.readouterr().err
    assert main([*arguments, "--min_similarity", "50"]) == 2
    assert "min_similarity is a correlation, from -1 to 1, got 50.0" in capsys.readouterr().err


def test_scans_that_are_kept_cannot_be_those_that_are_not_there(tmp_path, quick):
    write_tree(tmp_path / "raw", {"a": volume(), "b": volume()})
    scan_of(tmp_path, "b").write_bytes(b"")
    assert run(tmp_path, keep=["*"])["status"].tolist() == ["ok", "left out"]


def test_participants_without_a_scan_scans_without_a_participant_and_further_images_are_named(tmp_path, quick, capsys):
    write_tree(tmp_path / "raw", {"a": volume(), "b": volume(), "c": volume()})
    for name in ("sub-a_run-2_T1w.nii.gz", "sub-a_desc-brain_T1w.nii.gz", "._sub-a_T1w.nii.gz"):
        shutil.copy(scan_of(tmp_path, "a"), scan_of(tmp_path, "a").with_name(name))
    shutil.rmtree(tmp_path / "raw" / "sub-b")
    participants = tmp_path / "raw" / "participants.tsv"
    participants.write_text("".join(line for line in participants.open() if not line.startswith("sub-c")))
    table = run(tmp_path)
    assert [Path(name).name for name in table["scan"]] == ["sub-a_T1w.nii.gz", "sub-c_T1w.nii.gz"]
    said = capsys.readouterr().out
    assert "1 of 2 participants have no T1w image" in said and "left out: sub-b." in said
    assert "not in the data list: sub-c." in said
    assert "2 further T1w images" in said and "sub-a/anat/sub-a_run-2_T1w.nii.gz." in said
    assert listed(tmp_path) == ["sub-a"]


@pytest.mark.parametrize("name", ["sub-a_T1w.mgz", "sub-a_T1w.img"])
def test_other_files_that_nibabel_reads(tmp_path, quick, name):
    write_tree(tmp_path / "raw", {"a": volume()})
    image = nib.load(scan_of(tmp_path, "a"))
    kind = nib.MGHImage if name.endswith("mgz") else nib.Nifti1Pair
    nib.save(kind(image.get_fdata(dtype=np.float32), image.affine), scan_of(tmp_path, "a").with_name(name))
    scan_of(tmp_path, "a").unlink()
    assert run(tmp_path)["status"].tolist() == ["ok"]
    assert (tmp_path / "out" / "sub-a" / "anat" / "sub-a_desc-brain_T1w.nii.gz").is_file()


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
    assert "not in the data list: sub-c." in said
    assert "1 volumes are of scans that are gone and not in datalist.csv: delete them (first: sub-b/" in said


def test_sessions_that_only_folders_tell_have_results_of_their_own(tmp_path, quick):
    write_tree(tmp_path / "raw", {"a": volume()})
    anat = tmp_path / "raw" / "sub-a" / "anat"
    for session in ("ses-1", "ses-2"):
        shutil.copytree(anat, tmp_path / "raw" / "sub-a" / session / "anat")
    assert run(tmp_path)["status"].tolist() == ["ok"] * 3
    names = {"sub-a_T1w.png", "ses-1_sub-a_T1w.png", "ses-2_sub-a_T1w.png"}
    assert {file.name for file in (tmp_path / "out" / "slices").iterdir()} == names
    assert len(list((tmp_path / "out").rglob("*.nii.gz"))) == 3


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


def test_wrong_folders_are_told_in_one_sentence(tmp_path, capsys):
    command = ["preprocess", "--dataset_dir", str(tmp_path), "--output_dir"]
    assert main([*command, str(tmp_path)]) == 2
    assert "cannot go where the raw scans are" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "out")]) == 2
    assert "no scan sub-*" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main([*command, str(tmp_path / "file")]) == 2
    assert "file is a file: give a folder" in capsys.readouterr().err


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
