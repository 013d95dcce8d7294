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

from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_armed.transforms import HIPPOCAMPUS, CoronalSlice, RegisterToTemplate, SkullStrip
from monai_armed.transforms.register_to_template import (
    PLACES,
    _missing,
    _on_template_grid,
    _Registration,
    _template,
    _turns,
)

TEMPLATES = Path("/usr/share/mricron/templates")
ABSENT = [name for name in ("ants", "nilearn") if find_spec(name) is None]
needs_ants = pytest.mark.skipif(bool(ABSENT), reason=f"registration needs {ABSENT}")
needs_colin = pytest.mark.skipif(
    not TEMPLATES.is_dir() or find_spec("deepbet") is None,
    reason="Colin27 and the AAL atlas are in Debian's package mricron-data; deepbet is in the preprocess extra",
)


def subject(turn=None, scale=0.9, pitch=10):
    """The template's brain, smaller, tilted, shifted, noisy, on a coarser grid; where its hippocampal point is."""
    angle = np.radians(pitch)
    tilt = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    world = np.eye(4)
    world[:3, :3] = (np.eye(3) if turn is None else turn) @ tilt * scale
    world[:3, 3] = [12.0, -25.0, 30.0]
    template = _template()
    volume = template[:, ::2, ::2, ::2].as_tensor()
    affine = world @ np.asarray(template.affine) @ np.diag([2.0, 2.0, 2.0, 1.0])
    noise = 0.05 * torch.randn(volume.shape, generator=torch.Generator().manual_seed(0))
    brain = MetaTensor((volume + noise).clip(0) * (volume > 0), affine=torch.from_numpy(affine))
    return brain, world


@needs_ants
@pytest.mark.slow
@pytest.mark.parametrize("registration", ["rigid", "affine"])
def test_the_point_is_found_and_nothing_is_scaled(registration):
    brain, world = subject()
    result = RegisterToTemplate(registration)(brain)
    assert not result.meta["registration"]["turned"]
    assert result.meta["registration"]["similarity"] > 0.9
    torch.testing.assert_close(result.as_tensor(), brain.as_tensor())
    move = np.asarray(result.affine) @ np.linalg.inv(np.asarray(brain.affine))
    np.testing.assert_allclose(move[:3, :3] @ move[:3, :3].T, np.eye(3), atol=1e-6)
    found = move @ world @ [*HIPPOCAMPUS, 1.0]
    assert np.linalg.norm(found[:3] - HIPPOCAMPUS) < 1.0  # mm


@needs_ants
@pytest.mark.parametrize("number", [5, 13, 22])
def test_a_wrong_direction_in_the_header_is_found(number):
    turn = _turns()[number]
    brain, world = subject(turn)
    (_, header), (start, turned) = RegisterToTemplate()._starts(brain)
    assert turned and not header
    off = start @ world @ [*HIPPOCAMPUS, 1.0]
    assert np.linalg.norm(off[:3] - HIPPOCAMPUS) < 20.0  # roughly there: the tilt is left to ANTs


@needs_ants
@pytest.mark.parametrize("better", [False, True])
def test_the_better_of_the_headers_turn_and_the_best_one_is_kept(better, monkeypatch):
    register = RegisterToTemplate()
    starts = [(np.eye(4), False), (np.diag([1.0, -1.0, -1.0, 1.0]), True)]
    monkeypatch.setattr(register, "_starts", lambda img: starts)

    def found(img, start):
        similarity = 0.7 if (start[1, 1] < 0) == better else 0.4
        return _Registration(similarity, start[:3, :3], np.zeros(3), {"brain": similarity})

    monkeypatch.setattr(register, "_register", found)
    result = register(MetaTensor(torch.ones(1, 4, 4, 4), affine=torch.eye(4)))
    assert result.meta["registration"] == {"similarity": 0.7, "turned": better, "missing": {"brain": 0.7}}
    assert result.affine[1, 1] == (-1 if better else 1)


@needs_ants
@pytest.mark.slow
def test_a_head_that_is_pitched_is_not_taken_for_one_that_is_turned():
    brain, world = subject(pitch=-45)
    assert len(RegisterToTemplate()._starts(brain)) == 2  # by the turns alone it looks turned
    result = RegisterToTemplate()(brain)
    assert not result.meta["registration"]["turned"] and result.meta["registration"]["similarity"] > 0.9
    move = np.asarray(result.affine) @ np.linalg.inv(np.asarray(brain.affine))
    assert np.linalg.norm((move @ world @ [*HIPPOCAMPUS, 1.0])[:3] - HIPPOCAMPUS) < 1.0  # mm


@needs_ants
@pytest.mark.parametrize(
    ("cut", "place"),
    [
        (lambda x, y, z: z > 40, "top"),
        (lambda x, y, z: z < -35, "bottom"),
        (lambda x, y, z: y > 45, "front"),
        (lambda x, y, z: (abs(x) > 20) & (y > 0) & (y < 30) & (z < -10), "temporal poles"),
        (lambda x, y, z: x < -100, None),
    ],
)
def test_what_a_scan_lacks_of_the_brain_is_told_by_its_place(cut, place):
    volume = _on_template_grid(_template(), np.eye(4), 2)
    affine = np.asarray(_template().affine) @ np.diag([2.0, 2.0, 2.0, 1.0])
    x, y, z = np.moveaxis(np.stack(np.indices(volume.shape), -1) @ affine[:3, :3].T + affine[:3, 3], -1, 0)
    volume[cut(x, y, z)] = 0
    missing = _missing(volume)
    assert list(missing) == list(PLACES)
    assert {name for name, part in missing.items() if part > 0.8} == ({place} if place else set())
    assert max(missing.values()) > 0.8 or max(missing.values()) < 0.01


def test_there_are_24_turns():
    turns = _turns()
    assert len({turn.tobytes() for turn in turns}) == 24
    np.testing.assert_array_equal(turns[0], np.eye(3))
    assert all(np.linalg.det(turn) > 0.99 for turn in turns)


@needs_ants
def test_wrong_input_is_told():
    with pytest.raises(ValueError, match="one of rigid, affine, syn, got 'b-spline'"):
        RegisterToTemplate("b-spline")
    with pytest.raises(ValueError, match="not all 0"):
        RegisterToTemplate()(MetaTensor(torch.zeros(1, 5, 5, 5)))
    with pytest.raises(ValueError, match="values of 0 or more, got -1000: take the air's value off"):
        RegisterToTemplate()(MetaTensor(torch.full((1, 5, 5, 5), -1000.0)))


def test_missing_packages_are_named(monkeypatch):
    for module in ("register_to_template", "skull_strip"):
        monkeypatch.setattr(f"monai_armed.transforms.{module}.optional_import", lambda *a, **k: (None, False))
    for transform in (RegisterToTemplate, SkullStrip):
        with pytest.raises(ImportError, match=r"monai_armed\[preprocess\]"):
            transform()


@needs_ants
@needs_colin
@pytest.mark.slow
@pytest.mark.parametrize("turn", [lambda v: v, lambda v: np.rot90(v, 1, (1, 2))], ids=["upright", "turned"])
def test_the_slice_of_a_real_head_crosses_the_hippocampus(turn):
    colin, atlas = (nib.load(TEMPLATES / name) for name in ("ch2.nii.gz", "aal.nii.gz"))
    head = np.ascontiguousarray(turn(colin.get_fdata(dtype=np.float32)))
    labels = np.ascontiguousarray(turn(np.asarray(atlas.dataobj)))
    brain = SkullStrip()(MetaTensor(torch.from_numpy(head)[None], affine=torch.from_numpy(colin.affine)))
    assert brain[0].numpy()[labels > 0].astype(bool).mean() > 0.95
    result = RegisterToTemplate()(brain)
    for label, right in ((37, False), (38, True)):  # Hippocampus_L, Hippocampus_R
        mask = MetaTensor(torch.from_numpy(labels == label).float()[None], affine=result.affine)
        crossed = CoronalSlice(y=HIPPOCAMPUS[1], size=192, pixel_size=1.0, mode="nearest")(mask)[0]
        assert crossed.sum() > 50  # mm^2
        assert (torch.nonzero(crossed)[:, 1] > 96).all() == right
    hippocampus = np.argwhere(labels == 38) @ np.asarray(result.affine)[:3, :3].T + np.asarray(result.affine)[:3, 3]
    assert np.linalg.norm(hippocampus - HIPPOCAMPUS, axis=1).min() < 3.0  # mm
