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

from monai_armed.data.image_files import MICROSCOPY, VOLUMES, distinct_scans, is_image_file, list_image_files


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ", "a.b.nii"])
def test_what_is_a_nifti_file(tmp_path, name):
    assert is_image_file(touch(tmp_path / name), VOLUMES)


@pytest.mark.parametrize("name", ["._a.nii.gz", ".a.nii", "a.nii.gz.part", "a.nii.json", "a.nii.gz~", "a.png", "nii"])
def test_what_is_none(tmp_path, name):
    assert not is_image_file(touch(tmp_path / name), VOLUMES)


def test_a_folder_is_none_and_a_link_to_nothing_one_that_cannot_be_read(tmp_path):
    (tmp_path / "case.nii").mkdir()
    (tmp_path / "link.nii").symlink_to(tmp_path / "gone.nii")
    assert not is_image_file(tmp_path / "case.nii") and is_image_file(tmp_path / "link.nii")
    assert not is_image_file(tmp_path / "gone.nii")


def test_a_folder_is_gone_through_by_links_but_not_into_hidden_ones_nor_round(tmp_path):
    files = [touch(tmp_path / "case.nii" / "case.nii"), touch(tmp_path / "elsewhere" / "b.nii.gz")]
    for name in (".git/annex/objects/key.nii.gz/key.nii.gz", "derivatives/mask.nii", "__MACOSX/._b.nii.gz"):
        touch(tmp_path / name)
    (tmp_path / "sub-1").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path, target_is_directory=True)
    found = list_image_files(tmp_path, VOLUMES, without=("derivatives",))
    assert found == [*files, tmp_path / "sub-1" / "b.nii.gz"]
    touch(tmp_path / "b.tif")
    assert list_image_files(tmp_path, MICROSCOPY, below=False) == [tmp_path / "b.tif"]


def test_of_a_scan_that_is_there_twice_the_compressed_file_is_taken(tmp_path):
    files = [tmp_path / name for name in ("a.nii", "a.nii.gz", "b.nii", "c/a.nii.gz")]
    with pytest.warns(UserWarning, match=r"1 scans are there as \.nii and as \.nii\.gz.* .first left out: .*a\.nii"):
        assert distinct_scans(files) == files[1:]
    with pytest.warns(UserWarning):
        assert distinct_scans(files[::-1]) == files[:0:-1]
