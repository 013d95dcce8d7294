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
import pandas as pd
import pytest

pytest.importorskip("skimage")

from monai_armed.studies.cells.cell_features import (
    CELL_FEATURES,
    cell_features,
    cell_mask,
    feature_correlations,
    feature_slopes,
)


def ellipse(elongation=1.0, radius=10.0, angle=0.3, centre=(0.0, 0.0), level=0.4, background=0.1, side=64, seed=0):
    """An even ellipse on a noisy background."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    x, y = x - centre[0], y - centre[1]
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    inside = np.hypot(u / np.sqrt(elongation), v * np.sqrt(elongation)) < radius
    noise = 0.005 * np.random.default_rng(seed).standard_normal((side, side))
    return background + level * inside + noise


def with_grains(image, amplitude, seed=0, sd=0.8):
    """25 bright grains within 6 pixels of the middle."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: len(image), : len(image)] - (len(image) - 1) / 2
    for cx, cy in rng.uniform(-6, 6, (25, 2)):
        image = image + amplitude * np.exp(-0.5 * ((x - cx) ** 2 + (y - cy) ** 2) / sd**2)
    return image


@pytest.mark.parametrize("level", [0.4, -0.4])  # phase contrast shows cells brighter or darker than the background
def test_size_elongation_and_brightness_of_an_ellipse(level):
    table = cell_features(np.stack([ellipse(e, r, level=level, background=0.5) for e, r in ((1, 8), (1, 12), (2, 10))]))
    assert list(table) == list(CELL_FEATURES)
    np.testing.assert_allclose(table["size"], [16, 24, 20], rtol=0.1)
    np.testing.assert_allclose(table["elongation"], [1, 1, 2], rtol=0.12)
    np.testing.assert_allclose(table["brightness"], level, rtol=0.1)


def test_features_do_not_depend_on_background_gain_or_turn():
    image = with_grains(ellipse(1.6), 0.1)
    changed = np.rot90(0.05 + 0.6 * image)
    plain, other = cell_features(np.stack([image, changed])).drop(columns="brightness").to_numpy()
    np.testing.assert_allclose(other, plain, rtol=0.02)


def test_grains_raise_granularity_and_texture_energy():
    amplitudes = [0.0, 0.05, 0.1, 0.2]
    table = cell_features(np.stack([with_grains(ellipse(1.2), a) for a in amplitudes]))
    assert table["granularity"].is_monotonic_increasing
    assert table["texture_energy"].is_monotonic_increasing
    assert table["granularity"].iloc[-1] > 3 * table["granularity"].iloc[0]


def test_the_cell_is_the_one_in_the_middle():
    alone = ellipse(1.5)
    crowded = alone + ellipse(1.0, 12, centre=(-28, -28), background=0.0, seed=1)
    assert (cell_mask(crowded) ^ cell_mask(alone)).sum() < 5
    np.testing.assert_allclose(
        cell_features(crowded[None])[["size", "elongation"]], cell_features(alone[None])[["size", "elongation"]], 0.02
    )


def test_no_cell_no_features():
    noise = 0.3 + 0.01 * np.random.default_rng(0).standard_normal((2, 64, 64))
    noise[1] = 0.5
    assert not cell_mask(noise[0]).any()
    assert cell_features(noise).isna().all(axis=None)


def test_features_follow_the_truth_of_simulated_cells():
    from monai_armed.studies.cells.cohort import MEAN_BATCH, draw_cells, draw_frame
    from monai_armed.studies.cells.physics import compose, draw_optics

    cells = draw_cells(0, 8, 2)[::2]
    images = [compose(draw_optics(draw_frame(cell, 0, 64, 0)[0], 64), MEAN_BATCH, None) for cell in cells]
    table = cell_features(np.stack(images))
    truth = pd.DataFrame(
        {
            "size": [np.sqrt(cell.shape.semi_axes.prod()) for cell in cells],
            "elongation": [cell.shape.semi_axes[0] / cell.shape.semi_axes[1] for cell in cells],
            "granularity": [cell.shape.brightness for cell in cells],
        }
    )
    r = table.corrwith(truth)
    assert r["size"] > 0.95 and r["elongation"] > 0.9 and r["granularity"] > 0.4


def test_a_latent_is_read_by_regression():
    rng = np.random.default_rng(0)
    train, test = rng.standard_normal((200, 5)), rng.standard_normal((100, 5))
    features = [
        pd.DataFrame({"held": z[:, 0] - 2 * z[:, 1], "absent": rng.standard_normal(len(z)), "constant": 1.0})
        for z in (train, test)
    ]
    features[0].loc[:5, "held"] = np.nan  # cells that were not found
    table = feature_correlations(train, features[0], test, features[1]).set_index("feature")
    assert table["r"]["held"] > 0.99
    assert abs(table["r"]["absent"]) < 0.3
    assert np.isnan(table["r"]["constant"])
    assert table["cells"].tolist() == [100] * 3


def test_slopes_say_how_much_of_a_shape_is_left():
    images = cell_features(np.stack([ellipse(e, r) for e, r in ((1, 8), (1.3, 9), (1.6, 11), (2, 10))]))
    same = feature_slopes(images, images).set_index("feature")["slope"]
    np.testing.assert_allclose(same, 1)
    halved = images.assign(elongation=1 + 0.5 * (images["elongation"] - 1), size=20.0)
    table = feature_slopes(halved, images).set_index("feature")
    assert table["slope"]["elongation"] == pytest.approx(0.5)
    assert table["slope"]["size"] == pytest.approx(0)
    lost = images.copy()
    lost.iloc[:2] = np.nan
    assert np.isnan(feature_slopes(lost, images)["slope"]).all()


def test_refusals_name_what_is_wrong():
    table = pd.DataFrame({"size": [1.0, 2.0, 3.0]})
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 5\)"):
        cell_features(np.zeros((2, 3, 4, 5)))
    with pytest.raises(ValueError, match="finite"):
        cell_mask(np.full((8, 8), np.nan))
    with pytest.raises(ValueError, match="one row for each latent"):
        feature_correlations(np.zeros((2, 4)), table, np.zeros((3, 4)), table)
    with pytest.raises(ValueError, match=r"\['size'\].*\['other'\]"):
        feature_correlations(np.zeros((3, 4)), table, np.zeros((3, 4)), table.rename(columns={"size": "other"}))
    with pytest.raises(ValueError, match="one for each"):
        feature_slopes(table, table.iloc[:2])
