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

import pytest

from monai_armed.data import list_images


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return str(path)


def test_one_file(tmp_path):
    file = touch(tmp_path / "a.nii.gz")
    assert list_images(file) == [{"image": file, "file": file}]


def test_folder_without_derivatives(tmp_path):
    files = [touch(tmp_path / "sub-1" / "anat" / "sub-1_T1w.nii.gz"), touch(tmp_path / "x.nii")]
    touch(tmp_path / "derivatives" / "truth" / "mask.nii.gz")
    touch(tmp_path / "participants.tsv")
    assert [item["file"] for item in list_images(tmp_path)] == files


def test_a_folder_below_derivatives_may_be_named(tmp_path):
    file = touch(tmp_path / "derivatives" / "fmriprep" / "a.nii.gz")
    assert [item["image"] for item in list_images(tmp_path / "derivatives" / "fmriprep")] == [file]


def test_missing_and_empty(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file or folder .*nothing: give the path"):
        list_images(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"holds no NIfTI file"):
        list_images(tmp_path)


def test_links_to_folders_are_followed_and_circles_are_no_trouble(tmp_path):
    touch(tmp_path / "store" / "anat" / "x.nii.gz")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "sub-1").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "up").symlink_to(tmp_path / "tree")
    files = [item["file"] for item in list_images(tmp_path / "tree")]
    assert files == [str(tmp_path / "tree" / "sub-1" / "anat" / "x.nii.gz")]


def test_other_files_that_nibabel_reads_and_hidden_ones(tmp_path):
    files = [touch(tmp_path / name) for name in ("a.mgz", "b.img", "c.nii")]
    for name in ("._c.nii", "b.hdr", "c.json", "c.nii.gz.part"):
        touch(tmp_path / name)
    (tmp_path / "d.nii").mkdir()
    assert [item["file"] for item in list_images(tmp_path)] == files


def test_files_that_are_no_images_are_not_listed(tmp_path):
    file = touch(tmp_path / "case_t1.nii" / "case_t1.nii")
    for name in ("._a.nii.gz", "b.nii.gz.part", "b.nii.json", ".git/annex/objects/k.nii.gz/k.nii.gz"):
        touch(tmp_path / name)
    assert [item["image"] for item in list_images(tmp_path)] == [file]
    touch(tmp_path / "b.nii")
    other = touch(tmp_path / "b.nii.gz")
    with pytest.warns(UserWarning, match=r"1 scans are there as \.nii and as \.nii\.gz"):
        assert [item["image"] for item in list_images(tmp_path)] == [other, file]
    with pytest.raises(ValueError, match=r"b\.nii\.json is no NIfTI file .* by its name"):
        list_images(tmp_path / "b.nii.json")


def test_a_subject_may_be_a_link_to_a_folder(tmp_path):
    touch(tmp_path / "store" / "s1" / "a.nii.gz")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "sub-1").symlink_to(tmp_path / "store" / "s1", target_is_directory=True)
    assert [item["image"] for item in list_images(tmp_path / "study")] == [str(tmp_path / "study/sub-1/a.nii.gz")]
