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

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def save(path, voxels, affine=AFFINE, kind=nib.Nifti1Image, unit=None, codes=None):
    image = kind(voxels, affine)
    if unit is not None:
        image.header.set_xyzt_units(unit)
    if codes is not None:
        image.set_sform(affine, codes[0])
        image.set_qform(affine, codes[1])
    nib.save(image, path)
    return str(path)


def load(file):
    return LoadVolumed("image", ensure_channel_first=True)({"image": file})["image"]


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
    with pytest.raises(ValueError, match=r"bold\.nii has the shape \(2, 12, 13, 14\): give one 3-D volume a file"):
        load(save(tmp_path / "bold.nii", np.stack([voxels, voxels], axis=-1)))
    assert load(save(tmp_path / "one.nii", voxels[..., None])).shape == (1, 12, 13, 14)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image, nib.Nifti1Pair])
def test_a_header_without_an_orientation_is_refused_by_that_name(tmp_path, voxels, kind):
    name = "a.img" if kind is nib.Nifti1Pair else "a.nii"
    with pytest.raises(ValueError, match=rf"{name} does not know its orientation .sform_code and qform_code .* are 0"):
        load(save(tmp_path / name, voxels, kind=kind, codes=(0, 0)))
    for codes in ((1, 0), (0, 1), (2, 1), (4, 0)):
        image = load(save(tmp_path / name, voxels, kind=kind, codes=codes))
        np.testing.assert_allclose(image.affine, AFFINE, atol=1e-6)


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1e-3), ("micron", 1e3), ("mm", 1.0), ("unknown", 1.0)])
def test_world_coordinates_are_millimetres_whatever_the_unit(tmp_path, voxels, unit, factor):
    affine = np.array([[0, -2.0, 0, 5], [2, 0, 0, -7], [0, 0, 3, 9], [0, 0, 0, 1]])
    scaled = np.diag([factor] * 3 + [1]) @ affine
    file = save(tmp_path / "a.nii.gz", voxels, scaled, unit=unit)
    np.testing.assert_allclose(load(file).affine, affine, rtol=1e-5)


@pytest.mark.parametrize(
    ("affine", "unit", "message"),
    [
        (
            np.diag([1e-3, 1e-3, 1e-3, 1]),
            "mm",
            "voxels of 0.001 x 0.001 x 0.001 mm by its header, which gives the unit mm",
        ),
        (np.diag([1e3, 1e3, 1e3, 1]), "unknown", r"voxels of 1e\+03 .* which gives no unit: that cannot be"),
        (AFFINE, "micron", "voxels of 0.002 x .* the unit micron"),
        (np.diag([2.0, 2, 0, 1]), "mm", "an affine in its header that is no map of voxels into space"),
        (np.diag([2.0, 2, np.nan, 1]), "mm", "an affine in its header that is no map"),
    ],
)
def test_voxels_that_cannot_be_are_refused(tmp_path, voxels, affine, unit, message):
    save(tmp_path / "a.nii", voxels, unit=unit)
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[280:328] = affine[:3].astype("<f4").tobytes()  # srow_x, srow_y, srow_z
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load(str(tmp_path / "a.nii"))


def test_the_sform_counts_where_pixdim_says_something_else(tmp_path, voxels):
    """Programs that resample may leave the old voxel size in pixdim; MONAI would take a qform that is not set."""
    image = nib.Nifti1Image(voxels, np.diag([-2.0, 2.0, 2.0, 1.0]))
    image.header["pixdim"][1:4] = 1.0
    image.header["qform_code"] = 0
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(load(str(tmp_path / "a.nii")).affine, np.diag([-2.0, 2.0, 2.0, 1.0]))


def test_freesurfers_files_and_pairs_are_read_and_analyze_is_refused(tmp_path, voxels):
    for name, kind in (("a.mgz", nib.MGHImage), ("a.mgh", nib.MGHImage), ("b.img", nib.Nifti1Pair)):
        image = load(save(tmp_path / name, voxels, kind=kind))
        np.testing.assert_allclose(image[0], voxels)
        np.testing.assert_allclose(image.affine, AFFINE)
    assert load(str(tmp_path / "b.hdr")).shape == (1, 12, 13, 14)
    with pytest.raises(ValueError, match=r"c\.img is of the \w*Analyze format, which does not tell left from right"):
        load(save(tmp_path / "c.img", voxels, kind=nib.AnalyzeImage))
    (tmp_path / "b.hdr").unlink()
    with pytest.raises(ValueError, match=r"b\.img cannot be read"):
        load(str(tmp_path / "b.img"))


def test_values_that_are_no_real_numbers_are_refused(tmp_path, voxels):
    with pytest.raises(ValueError, match=r"a\.nii holds complex64 values: give it one real number a voxel"):
        load(save(tmp_path / "a.nii", voxels.astype(np.complex64)))
    colours = np.zeros(voxels.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(ValueError, match=r"b\.nii holds .* values: give it one real number"):
        load(save(tmp_path / "b.nii", colours))


def test_a_file_that_is_not_there_in_full_is_told_from_a_truncated_one(tmp_path, voxels):
    (tmp_path / "link.nii.gz").symlink_to("../.git/annex/objects/x.nii.gz")
    with pytest.raises(FileNotFoundError, match=r"link\.nii\.gz is a link to .*x\.nii\.gz, which .* fetch it"):
        load(str(tmp_path / "link.nii.gz"))
    for text in ("/annex/objects/MD5E-s1--x.nii.gz\n", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"):
        (tmp_path / "pointer.nii.gz").write_text(text)
        with pytest.raises(ValueError, match=r"pointer\.nii\.gz cannot be read: it only points to the image; fetch it"):
            load(str(tmp_path / "pointer.nii.gz"))
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(FileNotFoundError, match=r"folder\.nii is a folder"):
        load(str(tmp_path / "folder.nii"))


@pytest.mark.parametrize(
    ("error", "message"), [(PermissionError(13, "denied"), "cannot be read: its permissions"), (MemoryError(), "^$")]
)
def test_what_is_not_the_files_fault_is_told_as_it_is(tmp_path, voxels, monkeypatch, error, message):
    file = save(tmp_path / "a.nii", voxels)

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(nib, "load", fail)
    with pytest.raises(MemoryError if isinstance(error, MemoryError) else ValueError, match=message):
        load(file)


def test_a_plane_is_no_volume(tmp_path, voxels):
    nib.save(nib.Nifti1Image(voxels[:, :, 0], np.eye(4)), tmp_path / "plane.nii")
    for options in ({}, {"ensure_channel_first": True}):
        with pytest.raises(ValueError, match=r"plane\.nii has the shape .*: give one 3-D volume a file"):
            LoadVolumed(keys="image", **options)({"image": str(tmp_path / "plane.nii")})
