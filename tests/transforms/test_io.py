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

import pickle

import nibabel as nib
import numpy as np
import pytest

from monai_armed.transforms import LoadVolumed


def save(path, voxels):
    nib.save(nib.Nifti1Image(voxels, np.diag([2.0, 2.0, 2.0, 1.0])), path)
    return str(path)


@pytest.fixture
def voxels():
    return np.random.default_rng(0).random((12, 13, 14), dtype=np.float32)


def test_loads_as_monai_does(tmp_path, voxels):
    transform = pickle.loads(pickle.dumps(LoadVolumed("image", ensure_channel_first=True)))
    image = transform({"image": save(tmp_path / "a.nii.gz", voxels)})["image"]
    assert image.shape == (1, 12, 13, 14)
    np.testing.assert_allclose(np.diag(image.affine), [2, 2, 2, 1])


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.6])
def test_truncated_file_is_named(tmp_path, voxels, name, kept):
    path = tmp_path / name
    save(path, voxels)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ValueError, match=rf"{name} cannot be read .* may be truncated"):
        LoadVolumed("image")({"image": str(path)})


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.nii does not exist"):
        LoadVolumed("image")({"image": str(tmp_path / "none.nii")})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda v: np.where(v > 0.5, np.nan, v), "NaN or infinite values"),
        (lambda v: np.full_like(v, np.nan), "NaN or infinite values"),
        (lambda v: np.where(v > 0.99, np.inf, v), "NaN or infinite values"),
        (lambda v: np.zeros_like(v), r"constant \(every value is 0\)"),
    ],
)
def test_unusable_values_are_named(tmp_path, voxels, spoil, message):
    file = save(tmp_path / "bad.nii.gz", spoil(voxels).astype(np.float32))
    with pytest.raises(ValueError, match=rf"bad\.nii\.gz .*{message}"):
        LoadVolumed("image")({"image": file})


def test_more_than_one_volume_in_a_file_is_refused(tmp_path, voxels):
    load = LoadVolumed("image", ensure_channel_first=True)
    with pytest.raises(ValueError, match=r"bold\.nii has the shape \(2, 12, 13, 14\): give one 3-D volume a file"):
        load({"image": save(tmp_path / "bold.nii", np.stack([voxels, voxels], axis=-1))})
    assert load({"image": save(tmp_path / "one.nii", voxels[..., None])})["image"].shape == (1, 12, 13, 14)
