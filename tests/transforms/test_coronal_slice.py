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
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from monai_armed.transforms import CoronalSlice, CoronalSliced, LoadVolumed

AFFINE = np.array([[2.0, 0, 0, -90], [0, 2.0, 0, -18], [0, 0, 2.0, -72], [0, 0, 0, 1]])


def smooth_volume(affine, shape):
    """A function of world coordinates, so that any grid shows the same thing; linear, so interpolation is exact."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    x, y, z = np.moveaxis(index @ affine[:3, :3].T + affine[:3, 3], -1, 0)
    return (1000 + 2 * x + 3 * y + 5 * z).astype(np.float32)


def as_tensor(affine, shape):
    return MetaTensor(torch.from_numpy(smooth_volume(affine, shape))[None], affine=torch.from_numpy(affine))


def expected(size, pixel_size, y, centre):
    offsets = (np.arange(size) - (size - 1) / 2) * pixel_size
    return 1000 + 2 * (centre[0] + offsets)[None] + 3 * y + 5 * (centre[1] - offsets)[:, None]


def test_slice_is_the_plane_at_the_world_coordinate():
    result = CoronalSlice(y=-6.0, size=40, pixel_size=2.5, centre=(3.0, 14.0))(as_tensor(AFFINE, (91, 13, 91)))
    assert result.shape == (1, 40, 40)
    np.testing.assert_allclose(result[0], expected(40, 2.5, -6.0, (3.0, 14.0)), rtol=1e-4)


def test_a_plane_of_voxels_is_taken_as_it_is():
    volume = MetaTensor(torch.rand(1, 91, 13, 91), affine=torch.from_numpy(AFFINE))
    result = CoronalSlice(y=-6.0, size=91, pixel_size=2.0, centre=(0.0, 18.0))(volume)
    torch.testing.assert_close(result[0].as_tensor(), volume[0, :, 6].as_tensor().T.flip(0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("orientation", ["LAS", "LPI", "ASR", "SPL", "PIR"])
def test_orientation_of_the_file_does_not_matter(orientation, tmp_path):
    rng = np.random.default_rng(0)
    image = nib.Nifti1Image(rng.random((91, 13, 91), dtype=np.float32), AFFINE)
    axes = nib.orientations.axcodes2ornt(orientation)
    turned = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(AFFINE), axes))
    slices = []
    for name, volume in (("a.nii.gz", image), ("b.nii.gz", turned)):
        nib.save(volume, tmp_path / name)
        sample = LoadVolumed("image", ensure_channel_first=True)({"image": str(tmp_path / name)})
        slices.append(CoronalSliced("image")(sample)["image"].as_tensor())
    torch.testing.assert_close(*slices, atol=1e-5, rtol=0)


@pytest.mark.parametrize("voxel", [(1.0, 1.0, 1.0), (1.2, 1.1, 1.1), (2.0, 3.0, 2.5)])
def test_voxel_size_does_not_matter(voxel):
    affine = np.diag([*voxel, 1.0])
    affine[:3, 3] = (-70, -40, -60)
    shape = tuple(int(150 / size) for size in voxel)
    result = CoronalSlice(y=-6.0, size=32, pixel_size=2.0, centre=(0.0, 10.0))(as_tensor(affine, shape))
    np.testing.assert_allclose(result[0], expected(32, 2.0, -6.0, (0.0, 10.0)), rtol=1e-4)


def test_oblique_volume():
    angle = np.radians(20)
    affine = np.eye(4)
    affine[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine[:3, 3] = (-60, -60, -60)
    result = CoronalSlice(y=-6.0, size=16, pixel_size=2.0, centre=(0.0, 10.0))(as_tensor(affine, (120, 120, 120)))
    np.testing.assert_allclose(result[0], expected(16, 2.0, -6.0, (0.0, 10.0)), rtol=1e-4)


def test_a_mask_of_one_slice_keeps_its_labels():
    affine = AFFINE.copy()
    affine[1, 3] = -6.0
    labels = torch.randint(0, 3, (1, 91, 1, 91)).float()
    result = CoronalSlice(size=91, centre=(0.0, 18.0), mode="nearest")(
        MetaTensor(labels, affine=torch.from_numpy(affine))
    )
    torch.testing.assert_close(result[0].as_tensor(), labels[0, :, 0].T.flip(0))


def test_volume_that_does_not_reach_the_plane_is_named():
    volume = as_tensor(AFFINE, (91, 13, 91))
    volume.meta["filename_or_obj"] = "sub-1.nii.gz"
    with pytest.raises(ValueError, match=r"sub-1\.nii\.gz covers y = -19\.0 to 7\.0 mm .* y = 30 mm"):
        CoronalSlice(y=30.0)(volume)


def test_bad_arguments_and_inputs():
    with pytest.raises(ValueError, match="positive sizes"):
        CoronalSlice(size=0)
    with pytest.raises(ValueError, match="MetaTensor"):
        CoronalSlice()(torch.zeros(1, 4, 4, 4))


def test_pickles_and_builds_from_a_config():
    config = {"slice": {"_target_": "monai_armed.transforms.CoronalSliced", "keys": "image", "size": 24}}
    transform = pickle.loads(pickle.dumps(ConfigParser(config).get_parsed_content("slice")))
    assert transform({"image": as_tensor(AFFINE, (91, 13, 91))})["image"].shape == (1, 24, 24)
