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

from __future__ import annotations

import hashlib
import json
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from monai_armed.data import load_bids_datalist
from monai_armed.studies.ad_mri import simulator as ad_mri_simulator
from monai_armed.studies.ad_mri.cohort import TABLE_S1, draw_cohort
from monai_armed.studies.ad_mri.simulator import simulate_ad_mri


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def few_subjects(scale, seed, unseen_scale=None):
    """One subject a site of four seen and two unseen sites: enough to see that nothing depends on the order."""
    first = {subject.site.name: subject for subject in reversed(draw_cohort(scale, seed, unseen_scale))}
    chosen = [subject for name, subject in first.items() if name in {"052", "005", "002", "020", "U01", "U02"}]
    return sorted(chosen, key=lambda subject: subject.name)


@pytest.fixture(scope="module")
def small_study(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ad_mri_simulator, "draw_cohort", few_subjects)
        return simulate_ad_mri(tmp_path_factory.mktemp("study"), scale=0.01, seed=3, num_workers=0, progress=False)


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(ad_mri_simulator, "draw_cohort", few_subjects)


def test_full_cohort_is_table_s1():
    subjects = draw_cohort(1.0, 0)
    assert len({subject.name for subject in subjects}) == len(subjects)
    for name, people, images, ad_images, manufacturer, _ in TABLE_S1:
        site = [subject for subject in subjects if subject.site.name == name]
        assert len(site) == people
        assert sum(len(subject.scans) for subject in site) == images
        assert sum(len(subject.scans) for subject in site if subject.diagnosis == "AD") == ad_images
        assert {subject.site.manufacturer for subject in site} == {manufacturer}
    unseen = [subject for subject in subjects if subject.site.role == "unseen"]
    assert len({subject.site.name for subject in unseen}) == 51
    assert len(unseen) == pytest.approx(51 * 13, rel=0.1)
    assert sum(len(subject.scans) for subject in unseen) == pytest.approx(51 * 33, rel=0.1)


@pytest.mark.parametrize("scale", [0.01, 0.2, 0.5])
def test_scale_drops_no_site_and_keeps_the_shares(scale):
    subjects = draw_cohort(scale, 0)
    counts = pd.Series([subject.site.name for subject in subjects]).value_counts()
    assert len(counts) == 63 and counts.min() >= 2
    seen = [subject for subject in subjects if subject.site.role == "seen"]
    share = sum(len(s.scans) for s in seen if s.diagnosis == "AD") / sum(len(s.scans) for s in seen)
    assert share == pytest.approx(99 / 482, abs=0.14 if scale < 0.1 else 0.03)


def test_site_is_the_same_at_every_scale():
    small, large = ({s.site.name: s.site for s in draw_cohort(scale, 1)} for scale in (0.1, 1.0))
    for name, site in small.items():
        assert (site.snr, site.blur, site.manufacturer) == (large[name].snr, large[name].blur, large[name].manufacturer)
        np.testing.assert_array_equal(site.bias, large[name].bias)


def test_volumes_follow_diagnosis_and_time():
    subjects = draw_cohort(1.0, 0)
    first = pd.DataFrame(
        [(s.diagnosis, s.scans[0].h, np.log(s.scans[0].v)) for s in subjects], columns=["dx", "h", "v"]
    )
    mean, sd = first.groupby("dx").mean(), first.groupby("dx").std()
    assert mean.loc["CN", "h"] == pytest.approx(1.00, abs=0.02) and mean.loc["AD", "h"] == pytest.approx(0.80, abs=0.02)
    assert mean.loc["CN", "v"] == pytest.approx(0.00, abs=0.05) and mean.loc["AD", "v"] == pytest.approx(0.50, abs=0.06)
    assert sd["h"].to_list() == pytest.approx([0.10, 0.09], rel=0.12)
    followed = next(s for s in subjects if s.diagnosis == "AD" and len(s.scans) >= 3)
    assert followed.scans[2].h / followed.scans[0].h == pytest.approx(0.96)
    assert followed.scans[2].v / followed.scans[0].v == pytest.approx(1.05)


@pytest.mark.parametrize("scale", [0.0, -1.0, 1.5])
def test_scale_out_of_range(scale):
    with pytest.raises(ValueError, match="scale"):
        draw_cohort(scale, 0)


def test_tree_is_read_as_bids_with_truth_for_every_image(small_study):
    datalist = load_bids_datalist(small_study)
    truth = pd.read_csv(small_study / "derivatives" / "truth" / "truth.tsv", sep="\t", dtype={"site": str})
    assert {item["site"] for item in datalist} == {"052", "005", "002", "020", "U01", "U02"}
    assert {item["site_role"] for item in datalist} == {"seen", "unseen"}
    assert sorted(truth["image"]) == sorted(
        p.relative_to(small_study).as_posix() for p in small_study.glob("sub-*/**/*.gz")
    )
    assert json.loads((small_study / "derivatives" / "truth" / "ceilings.json").read_text())
    assert "SIMULATED" in (small_study / "README.md").read_text()


def test_images_and_masks_agree_with_the_truth(small_study):
    truth = pd.read_csv(small_study / "derivatives" / "truth" / "truth.tsv", sep="\t")
    for row in truth.itertuples():
        image, mask = nib.load(small_study / row.image), nib.load(small_study / row.mask)
        assert image.shape == (91, 13, 91) and mask.shape == (91, 1, 91)
        np.testing.assert_allclose(image.affine @ [0, 6, 0, 1], mask.affine @ [0, 0, 0, 1])
        labels, voxels = np.asarray(mask.dataobj), image.get_fdata()
        assert (labels == 1).sum() * 4 == pytest.approx(row.hippocampus_amygdala_area, rel=0.15)
        assert 0.25 < (voxels[:, 6] > 0).mean() < 0.5
        # ventricles are darker than hippocampi in a T1-weighted image
        assert voxels[:, 6:7][labels == 2].mean() < voxels[:, 6:7][labels == 1].mean()


@pytest.mark.slow
def test_same_seed_same_bytes_for_any_number_of_workers(few, small_study, tmp_path):
    again = simulate_ad_mri(tmp_path / "again", scale=0.01, seed=3, num_workers=2, progress=False)
    assert digests(again) == digests(small_study)


def test_resumes_after_an_interruption(few, small_study, tmp_path, monkeypatch):
    folder = tmp_path / "interrupted"
    work, calls = ad_mri_simulator._simulate_subject, []

    def killed_at_the_third(job):
        calls.append(job)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return work(job)

    monkeypatch.setattr(ad_mri_simulator, "_simulate_subject", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        simulate_ad_mri(folder, scale=0.01, seed=3, num_workers=0, progress=False)
    monkeypatch.setattr(ad_mri_simulator, "_simulate_subject", lambda job: calls.append(job) or work(job))
    calls.clear()
    simulate_ad_mri(folder, scale=0.01, seed=3, num_workers=0, progress=False)
    assert len(calls) == 4
    assert digests(folder) == digests(small_study)
    simulate_ad_mri(folder, scale=0.01, seed=3, num_workers=0, progress=False)
    assert len(calls) == 4


def test_seed_changes_the_images(few, small_study, tmp_path, monkeypatch):
    monkeypatch.setattr(ad_mri_simulator, "draw_cohort", lambda *cohort: few_subjects(*cohort)[:1])
    other = simulate_ad_mri(tmp_path / "other", scale=0.01, seed=4, num_workers=0, progress=False)
    image = sorted(other.glob("sub-*/**/*.nii.gz"))[0].relative_to(other)
    assert (other / image).read_bytes() != (small_study / image).read_bytes()


def test_other_parameters_or_other_data_in_the_folder_are_refused(small_study, tmp_path):
    with pytest.raises(ValueError, match=r"'scale': 0\.01.*give another folder"):
        simulate_ad_mri(small_study, scale=0.02, seed=3, progress=False)
    shutil.copy(small_study / "participants.tsv", tmp_path)
    with pytest.raises(ValueError, match="did not write"):
        simulate_ad_mri(tmp_path, scale=0.01, progress=False)
