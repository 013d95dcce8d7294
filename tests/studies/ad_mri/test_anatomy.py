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

import numpy as np
import pytest
import torch

from monai_armed.studies.ad_mri.anatomy import SubjectWarp, disease_model, grid_points, load_template, sample_world


@pytest.fixture(scope="module")
def roi_axes():
    return [np.arange(-62.0, 63.0), np.arange(-80.0, 46.0), np.arange(-50.0, 46.0)]


def test_template_holds_tissue_fractions_and_aligned_regions():
    template = load_template()
    tissues, rois = template.maps[:3], template.maps[3:]
    assert tissues.min() >= -1e-6 and tissues.sum(dim=0).max() <= 1.0 + 1e-6
    hippocampus, ventricle = (tissues[:, roi > 0].mean(dim=1) for roi in rois)
    assert hippocampus[1] > 0.6  # grey
    assert ventricle[2] > 0.6  # CSF


@pytest.mark.parametrize(("h", "v"), [(1.0, 1.0), (0.8, 1.65), (0.65, 1.0), (1.15, 0.65), (0.6, 2.8), (0.9, 2.0)])
def test_deformed_masks_have_the_volumes_asked_for(h, v, roi_axes):
    template = load_template()
    moved = disease_model().displace(grid_points(roi_axes), h, v)
    masks = sample_world(template.maps[3:], template.origin, 1.0, moved)
    volumes = masks.sum(dim=(1, 2, 3), dtype=torch.float64).numpy() / template.roi_volumes
    assert volumes[0] == pytest.approx(h, rel=0.05)
    assert volumes[1] == pytest.approx(v, rel=0.05)


@pytest.mark.parametrize(("h", "v"), [(0.6, 2.5), (1.25, 0.5)])
def test_deformation_does_not_fold(h, v, roi_axes):
    points = grid_points([axis[::2] for axis in roi_axes])
    moved = disease_model().displace(points, h, v).numpy()
    gradients = np.stack(np.gradient(moved, 2.0, axis=(0, 1, 2)), axis=-1)
    assert np.linalg.det(gradients).min() > 0


def test_volume_out_of_reach_is_named():
    with pytest.raises(ValueError, match=r"lateral_ventricle .* got 40"):
        disease_model().displace(torch.zeros(1, 1, 1, 3), 1.0, 40.0)


def test_warp_has_the_standard_deviation_and_correlation_asked_for():
    axes = [np.arange(-60.0, 61.0, 20.0), np.arange(-80.0, 61.0, 20.0), np.arange(-40.0, 61.0, 20.0)]
    fields = np.stack([SubjectWarp.draw(np.random.default_rng(k)).displacement(axes) for k in range(60)])
    assert fields.std() == pytest.approx(2.0, rel=0.05)
    for axis in (2, 3, 4):
        near = np.take(fields, range(fields.shape[axis] - 1), axis)
        far = np.take(fields, range(1, fields.shape[axis]), axis)
        assert np.mean(near * far) / np.mean(fields**2) == pytest.approx(np.exp(-0.5), abs=0.08)


def test_slab_of_a_warp_is_a_part_of_the_whole():
    warp = SubjectWarp.draw(np.random.default_rng(0))
    axes = [np.arange(-60.0, 61.0, 10.0), np.arange(-80.0, 61.0, 10.0), np.arange(-40.0, 61.0, 10.0)]
    slab = warp.to_template([axes[0], axes[1][4:6], axes[2]])
    torch.testing.assert_close(slab, warp.to_template(axes)[:, 4:6])
