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

"""What is done to the tree of the AD study before a case: each function gives an edit, or is one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from .case import Place
from .study_data import AFFINE, SEEN_SITES, UNSEEN_SITES


def rows(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Place], None]:
    """An edit of participants.tsv."""

    def edit(place: Place) -> None:
        path = place.data / "participants.tsv"
        changed = change(pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False))
        changed.to_csv(path, sep="\t", index=False)

    return edit


def participants(change: Callable[[bytes], bytes]) -> Callable[[Place], object]:
    """An edit of the bytes of participants.tsv."""

    def edit(place: Place) -> None:
        path = place.data / "participants.tsv"
        path.write_bytes(change(path.read_bytes()))

    return edit


def scan(place: Place, number: int = 0) -> Path:
    """A volume of the tree; the first is of a training subject."""
    return sorted(place.data.glob("sub-*/anat/*.nii.gz"))[number]


def file(change: Callable[[Path], object]) -> Callable[[Place], object]:
    """An edit of one volume's file."""
    return lambda place: change(scan(place))


def volume(change: Callable[[np.ndarray], np.ndarray], every: bool = False) -> Callable[[Place], None]:
    """An edit of the voxels of one volume, or of all."""

    def edit(place: Place) -> None:
        for path in sorted(place.data.glob("sub-*/anat/*.nii.gz"))[: None if every else 1]:
            image = nib.Nifti1Image.from_filename(path)
            changed = nib.Nifti1Image(change(np.asanyarray(image.dataobj)), image.affine)
            changed.header.set_xyzt_units("mm")
            nib.save(changed, path)

    return edit


def header(change: Callable[[nib.Nifti1Image], object]) -> Callable[[Place], None]:
    """An edit of the header of all volumes."""

    def edit(place: Place) -> None:
        for path in place.data.glob("sub-*/anat/*.nii.gz"):
            image = nib.Nifti1Image(np.asanyarray(nib.Nifti1Image.from_filename(path).dataobj), AFFINE)
            image.header.set_xyzt_units("mm")
            change(image)
            nib.save(image, path)

    return edit


def no_codes(image: nib.Nifti1Image) -> None:
    """Neither form says where the volume lies."""
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)


def metres(image: nib.Nifti1Image) -> None:
    """The voxel size is given in metres, and the unit says so."""
    scaled = image.affine @ np.diag([1e-3, 1e-3, 1e-3, 1])
    scaled[:3, 3] = image.affine[:3, 3] * 1e-3
    image.set_sform(scaled, code=1)
    image.set_qform(scaled, code=1)
    image.header.set_xyzt_units("meter")


def beside(*names: str) -> Callable[[Place], None]:
    """An edit that puts further files beside the first volume, copies of it."""

    def edit(place: Place) -> None:
        for name in names:
            shutil.copy(scan(place), scan(place).with_name(name))

    return edit


def apple_double(place: Place) -> None:
    """What macOS leaves on other file systems, beside each volume."""
    for path in list(place.data.glob("sub-*/anat/*.nii.gz")):
        path.with_name("._" + path.name).write_bytes(b"\x00\x05\x16\x07Mac OS X")


def broken_link(place: Place) -> None:
    """A volume that an annex has not fetched."""
    path = scan(place)
    path.unlink()
    path.symlink_to("../../.git/annex/objects/xx/none.nii.gz")


def unpacked(place: Place) -> None:
    """A volume there as .nii, too."""
    image = nib.load(scan(place))
    nib.save(image, scan(place).with_suffix(""))


def first(column: str, value: str, count: int = 1) -> Callable[[Place], None]:
    """An edit of a column in the first rows."""

    def change(given: pd.DataFrame) -> pd.DataFrame:
        given.loc[given.index[:count], column] = value
        return given

    return rows(change)


def another_hospital(place: Place) -> None:
    """Other volumes, subjects and sites."""
    volume(lambda voxels: voxels[::-1], every=True)(place)
    renamed(place)


def renamed(place: Place) -> None:
    """Other subjects and sites, but the same volumes."""
    names = dict(zip((*SEEN_SITES, *UNSEEN_SITES), ("A", "B", "C", "D", "E", "F")))
    for folder in list(place.data.glob("sub-*")):
        for path in list(folder.glob("anat/*")):
            path.rename(path.with_name(path.name.replace("sub-", "sub-H")))
        folder.rename(folder.with_name(folder.name.replace("sub-", "sub-H")))
    rows(lambda g: g.replace({"site": names}).assign(participant_id=g["participant_id"].str.replace("sub-", "sub-H")))(
        place
    )
    rows(lambda g: g.drop(columns="site_role"))(place)
