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

from pathlib import Path

import pytest

from monai_armed.data import load_bids_datalist
from monai_armed.data.bids import list_bids_images
from monai_armed.data.bids_scans import one_scan_a_session, unmatched


def tree(folder, *names):
    """Empty files of a BIDS tree, by their names."""
    for name in names:
        subject, session = name.split("_")[0], next((part for part in name.split("_") if part.startswith("ses-")), "")
        file = folder / subject / session / "anat" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return folder


@pytest.mark.parametrize(
    "further",
    [
        "sub-1_desc-brain_T1w.nii.gz",
        "sub-1_space-MNI152_T1w.nii.gz",
        "sub-1_run-2_T1w.nii.gz",
        "sub-1_acq-fast_T1w.nii.gz",
        "._sub-1_T1w.nii.gz",
        "sub-1_T1w.nii",
    ],
)
def test_what_is_no_further_scan_of_a_subject(tmp_path, further):
    tree(tmp_path, "sub-1_T1w.nii.gz")
    (tmp_path / "sub-1" / "anat" / further).touch()
    assert [file.name for file in list_bids_images(tmp_path)] == ["sub-1_T1w.nii.gz"]


def test_where_there_is_nothing_better_a_derivative_or_a_later_run_is_taken(tmp_path):
    tree(tmp_path, "sub-1_desc-brain_T1w.nii.gz", "sub-2_run-03_T1w.nii", "sub-2_run-10_T1w.nii", "sub-3_T1w.mgz")
    names = [file.name for file in list_bids_images(tmp_path)]
    assert names == ["sub-1_desc-brain_T1w.nii.gz", "sub-2_run-03_T1w.nii", "sub-3_T1w.mgz"]


def test_sessions_are_scans_of_their_own_also_in_one_folder():
    files = [Path(f"sub-1/anat/sub-1_ses-{k}_T1w.nii") for k in "ab"] + [Path("sub-1/ses-c/anat/sub-1_T1w.nii")]
    assert one_scan_a_session(files) == files


def test_what_comes_to_nothing_is_named(tmp_path):
    there = [tmp_path / f"sub-{k}" / "anat" / f"sub-{k}{run}_T1w.nii" for k in "12" for run in ("", "_run-2")]
    without, unknown, further = unmatched(["1", "sub-3"], one_scan_a_session(there), there, tmp_path)
    assert "1 of 2 participants have no T1w image" in without and without.endswith("left out: sub-3.")
    assert "1 subjects have a T1w image" in unknown and unknown.endswith("not in the data list: sub-2.")
    assert "2 further T1w images" in further and further.endswith("sub-2/anat/sub-2_run-2_T1w.nii.")
    many = unmatched([str(k) for k in range(30)], [], [], tmp_path)
    assert len(many) == 1 and many[0].endswith("sub-8, sub-9 and 20 more.")
    assert unmatched(["1", "2"], one_scan_a_session(there), one_scan_a_session(there), tmp_path) == []


def test_training_names_participants_without_a_scan_and_scans_without_a_participant(tmp_path):
    tree(tmp_path, "sub-1_T1w.nii", "sub-2_T1w.nii")
    (tmp_path / "participants.tsv").write_text("participant_id\tsite\tdiagnosis\n1\ta\tAD\n3\ta\tCN\n")
    with pytest.warns(UserWarning, match=r"no T1w image .* sub-3\.") as told:
        assert len(load_bids_datalist(tmp_path)) == 1
    assert any(str(warning.message).endswith("not in the data list: sub-2.") for warning in told)
