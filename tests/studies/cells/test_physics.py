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

from dataclasses import replace

import numpy as np
import pytest

from monai_armed.studies.cells.cohort import MEAN_BATCH, draw_batches, draw_cells, draw_frame
from monai_armed.studies.cells.physics import FRAME, Cell, FrameDraws, compose, draw_optics

PLAIN = replace(MEAN_BATCH, halo=0.0, highlight=0.0, blur=0.6)
QUIET = FrameDraws(0.0, 0.0, np.zeros((64, 64)), np.zeros((64, 64)))


@pytest.fixture(scope="module")
def cells():
    return draw_cells(seed=0, cells_per_batch=40, unseen_cells_per_batch=20)


def round_cell(cells, radius=40.0, **changes):
    """A smooth round cell without granules in the middle of the frame."""
    shape = replace(cells[0].shape, semi_axes=np.full(2, radius), waves=np.zeros(0), brightness=0.0, pseudopodia=())
    return Cell(replace(shape, **changes))


def distance(size):
    axis = (np.arange(size) + 0.5) * FRAME / size - FRAME / 2
    return np.hypot(axis[None], axis[:, None])


def test_rim_core_and_halo_are_as_defined(cells):
    batch = replace(PLAIN, halo=0.1)
    signal = compose(draw_optics(round_cell(cells), 256), batch, None) - batch.background
    radius = distance(256)
    assert signal[abs(radius - 30) < 0.7].mean() == pytest.approx(0.55, abs=0.01)
    assert signal[radius < 12].mean() == pytest.approx(0.25, abs=0.01)
    assert signal[abs(radius - 46) < 0.7].mean() == pytest.approx(0.10, abs=0.01)
    assert signal[abs(radius - 54) < 0.7].mean() == pytest.approx(0.10 / np.e, abs=0.01)
    assert signal[radius > 100].max() < 1e-3


def test_rim_and_core_of_the_drawn_cells(cells):
    rims, cores = [], []
    for cell in cells[::8]:
        shape = replace(cell.shape, brightness=0.0, pseudopodia=(), angle=0.0)
        if shape.semi_axes[1] > 25:
            signal = compose(draw_optics(Cell(shape), 256), PLAIN, None) - PLAIN.background
            rims.append(np.median(signal[:, 127:129].mean(axis=1)[:128].max()))  # along the smaller axis
            cores.append(signal[126:130, 126:130].mean())
    assert len(rims) > 20
    assert np.mean(rims) == pytest.approx(0.55, abs=0.02) and np.mean(cores) == pytest.approx(0.25, abs=0.03)


def test_contrast_acts_on_the_cell_and_highlight_and_gradient_are_added(cells):
    optics = draw_optics(round_cell(cells), 64)
    plain = compose(optics, PLAIN, None)
    strong = compose(optics, replace(PLAIN, contrast=1.4), None)
    np.testing.assert_allclose(strong - PLAIN.background, 1.4 * (plain - PLAIN.background), atol=1e-12)
    added = compose(optics, replace(PLAIN, highlight=0.2, angle=0.0), None) - plain
    assert added.max() == pytest.approx(0.2, abs=0.01)
    assert np.unravel_index(added.argmax(), added.shape)[1] > 32  # up the gradient, which is to the right
    tilted = compose(optics, replace(PLAIN, gradient=0.03, angle=0.0), None) - plain
    assert tilted[0, -1] - tilted[0, 0] == pytest.approx(0.03 * 63 / 64)


@pytest.mark.parametrize("size", [64, 256])
def test_noise_has_its_standard_deviation_at_every_size_and_survives_8_bits(cells, size):
    batch = replace(PLAIN, texture=0.006, noise=0.002)
    _, draws = draw_frame(cells[0], 0, size, seed=0)
    optics = draw_optics(round_cell(cells), size)
    image = compose(optics, batch, replace(draws, background=0.0, contrast=0.0))
    background = distance(size) > 80
    expected = np.hypot(0.006, 0.002)
    assert image[background].std() == pytest.approx(expected, rel=0.08)
    rounded = np.rint(image * 255) / 255
    assert rounded[background].std() == pytest.approx(image[background].std(), rel=0.03)


def test_texture_is_correlated_over_two_pixels_of_the_frame(cells):
    _, draws = draw_frame(cells[0], 0, 256, seed=0)
    batch = replace(PLAIN, texture=0.01, noise=0.0, contrast=0.0)
    field = compose(draw_optics(round_cell(cells), 256), batch, replace(draws, background=0.0)) - batch.background
    # a Gaussian of s.d. 2 px gives the correlation exp(-d^2 / (4 * 2^2)) at the distance d
    for shift in (2, 4):
        measured = np.corrcoef(field[:, shift:].ravel(), field[:, :-shift].ravel())[0, 1]
        assert measured == pytest.approx(np.exp(-(shift**2) / 16), abs=0.05)


def test_rendering_at_a_size_is_near_the_mean_over_the_pixels_of_a_larger_one(cells):
    batch = replace(PLAIN, contrast=0.5)  # so that nothing is clipped
    for cell in cells[:80:20]:
        small, large = (compose(draw_optics(Cell(cell.shape), size), batch, None) for size in (64, 256))
        averaged = large.reshape(64, 4, 64, 4).mean(axis=(1, 3))
        assert np.abs(small - averaged).mean() < 0.001 and np.abs(small - averaged).max() < 0.03


def test_pseudopodia_reach_out_at_256_and_hardly_show_at_64(cells):
    strongest, energy = {}, {}
    with_one = [cell.shape for cell in cells if len(cell.shape.pseudopodia) == 1][:40:4]
    for size in (64, 256):
        difference = [
            compose(draw_optics(Cell(shape), size), MEAN_BATCH, None)
            - compose(draw_optics(Cell(replace(shape, pseudopodia=())), size), MEAN_BATCH, None)
            for shape in with_one
        ]
        strongest[size] = np.mean([np.abs(d).max() for d in difference])
        energy[size] = np.mean([np.sqrt((d**2).sum()) for d in difference])
    typical_noise = np.hypot(MEAN_BATCH.texture, MEAN_BATCH.noise)
    assert strongest[64] < 2 * typical_noise < strongest[256]
    assert energy[64] < energy[256] / 4
    assert max(strongest.values()) < 0.3  # darker than the rim


def test_the_frames_own_draws_are_scaled_by_the_batch(cells):
    optics = draw_optics(round_cell(cells), 64)
    plain = compose(optics, PLAIN, QUIET)
    brighter = compose(optics, PLAIN, replace(QUIET, background=1.0)) - plain
    np.testing.assert_allclose(brighter, 0.02, atol=1e-12)
    stronger = compose(optics, PLAIN, replace(QUIET, contrast=1.0)) - PLAIN.background
    np.testing.assert_allclose(stronger, 1.1 * (plain - PLAIN.background), atol=1e-12)
    darkest = compose(optics, PLAIN, replace(QUIET, background=-10.0))
    assert darkest.min() == pytest.approx(0.01)


def test_values_stay_in_0_to_1(cells):
    batch = replace(draw_batches(0)["200106"], contrast=1.5, highlight=1.0)
    contents, draws = draw_frame(cells[0], 0, 64, seed=0)
    image = compose(draw_optics(contents, 64), batch, draws)
    assert image.min() >= 0 and image.max() == 1
