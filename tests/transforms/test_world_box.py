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

from monai_armed.transforms import CoronalSlice, LoadVolumed, WorldBox, WorldBoxd

CENTRE, SIZE = (3.0, -6.0, -4.0), (9, 5, 7)
AFFINE = np.array([[2.0, 0, 0, -90], [0, 2.0, 0, -18], [0, 0, 2.0, -72], [0, 0, 0, 1]])


def coordinates(affine, shape):
    """Volume (3, X, Y, Z) whose voxels hold their own world coordinates."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    world = np.moveaxis(index @ affine[:3, :3].T + affine[:3, 3], -1, 0)
    return MetaTensor(torch.from_numpy(world.astype(np.float32)), affine=torch.from_numpy(affine))


def rotated(degrees, voxel_size):
    """Affine of a volume that is turned about an oblique axis, around the origin of the world."""
    axis = np.array([0.6, 0.0, 0.8]) * np.radians(degrees)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    affine = np.eye(4)
    affine[:3, :3] = torch.linalg.matrix_exp(torch.from_numpy(cross)).numpy() * voxel_size
    affine[:3, 3] = affine[:3, :3] @ np.full(3, -40.0)
    return affine


def flipped(axis):
    affine = AFFINE.copy()
    affine[:, 3] = affine @ np.eye(4)[axis] * ((91, 13, 91)[axis] - 1) + affine[:, 3]
    affine[:, axis] *= -1
    return affine


def expected(voxel_size):
    """World coordinates of the box's voxels, from its definition."""
    lines = [c + voxel_size * (np.arange(n) - (n - 1) / 2) for c, n in zip(CENTRE, SIZE)]
    return np.stack(np.meshgrid(*lines, indexing="ij"))


@pytest.mark.parametrize(
    "affine, shape",
    [
        (AFFINE, (91, 13, 91)),
        (flipped(0), (91, 13, 91)),
        (flipped(2), (91, 13, 91)),
        (AFFINE[[1, 2, 0, 3]][[2, 0, 1, 3]][:, [2, 0, 1, 3]], (91, 91, 13)),
        (rotated(30, 1.0), (81, 81, 81)),
        (rotated(100, 1.3), (81, 81, 81)),
    ],
    ids=["upright", "flipped left-right", "upside down", "axes swapped", "oblique", "turned over"],
)
def test_every_voxel_of_the_box_is_where_it_should_be(affine, shape):
    box = WorldBox(CENTRE, SIZE, voxel_size=1.5)(coordinates(affine, shape))
    assert box.shape == (3, *SIZE)
    np.testing.assert_allclose(box, expected(1.5), atol=2e-3)


def test_the_box_has_its_affine():
    box = WorldBox(CENTRE, SIZE, voxel_size=1.5)(coordinates(rotated(30, 1.0), (81, 81, 81)))
    np.testing.assert_allclose(box.affine[:3, :3], 1.5 * np.eye(3), atol=1e-12)
    np.testing.assert_allclose((box.affine @ torch.tensor([4.0, 2.0, 3.0, 1.0], dtype=torch.float64))[:3], CENTRE)


def test_axes_of_the_box_can_be_turned():
    volume = coordinates(AFFINE, (91, 13, 91))
    box, turned = (WorldBox(CENTRE, SIZE, axes=axes)(volume).as_tensor() for axes in ("RAS", "LPI"))
    torch.testing.assert_close(turned, box.flip(1, 2, 3))


def test_a_slice_is_in_the_box():
    volume = MetaTensor(torch.rand(1, 91, 13, 91), affine=torch.from_numpy(AFFINE))
    box = WorldBox((0.0, -6.0, 14.0), (40, 3, 40))(volume)
    cut = CoronalSlice(y=-6.0, size=40, pixel_size=2.0, centre=(0.0, 14.0))(volume)
    torch.testing.assert_close(cut[0].as_tensor(), box[0, :, 1].as_tensor().T.flip(0))


def test_a_slab_and_the_whole_head_give_the_same_box(tmp_path):
    head = np.random.default_rng(0).random((91, 109, 91), dtype=np.float32)
    whole = AFFINE.copy()
    whole[1, 3] = -126.0
    boxes = []
    for name, volume, affine in (("head.nii.gz", head, whole), ("slab.nii.gz", head[:, 54:67], AFFINE)):
        nib.save(nib.Nifti1Image(volume, affine), tmp_path / name)
        sample = LoadVolumed("image", ensure_channel_first=True)({"image": str(tmp_path / name)})
        boxes.append(WorldBoxd("image", (0.0, -6.0, -4.0), (49, 13, 41))(sample)["image"].as_tensor())
    torch.testing.assert_close(*boxes, atol=1e-5, rtol=0)


def test_beyond_the_volume_are_zeros():
    volume = MetaTensor(torch.ones(1, 91, 13, 91), affine=torch.from_numpy(AFFINE))
    box = WorldBox(CENTRE, (3, 17, 3))(volume)
    inside = torch.zeros_like(box)
    inside[:, :, 2:15] = 1
    torch.testing.assert_close(box, inside)


@pytest.mark.parametrize("centre, words", [((0, 30, 0), "y = -19.0 to 7.0 .* y = 30"), ((0, 0, -80), "z = -80 mm")])
def test_volume_that_does_not_reach_the_box_is_named(centre, words):
    volume = coordinates(AFFINE, (91, 13, 91))
    volume.meta["filename_or_obj"] = "sub-1.nii.gz"
    with pytest.raises(ValueError, match=rf"sub-1\.nii\.gz covers .*{words}"):
        WorldBox(centre, SIZE)(volume)


def test_bad_arguments_and_inputs():
    for wrong in ({"size": (4, 4)}, {"size": (4, 0, 4)}, {"centre": (0.0,)}, {"voxel_size": 0}):
        with pytest.raises(ValueError, match="three positive sizes"):
            WorldBox(**{"centre": CENTRE, "size": SIZE, **wrong})
    for axes in ("RLS", "RA", "xyz"):
        with pytest.raises(ValueError, match=f"axes must be .* got '{axes}'"):
            WorldBox(CENTRE, SIZE, axes=axes)
    with pytest.raises(ValueError, match="WorldBox needs a MetaTensor"):
        WorldBox(CENTRE, SIZE)(torch.zeros(1, 4, 4, 4))


def test_pickles_and_builds_from_a_config():
    config = {"_target_": "monai_armed.transforms.WorldBoxd", "keys": "image", "centre": CENTRE, "size": SIZE}
    transform = pickle.loads(pickle.dumps(ConfigParser({"box": config}).get_parsed_content("box")))
    assert transform({"image": coordinates(AFFINE, (91, 13, 91))})["image"].shape == (3, *SIZE)
