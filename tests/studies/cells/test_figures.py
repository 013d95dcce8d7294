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

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba

from monai_armed.studies.cells.figures import plot_latents, plot_recon_scales, plot_reconstructions

RNG = np.random.default_rng(0)
IMAGES = {title: RNG.uniform(0, 1, (3, 8, 8)) for title in ("real", "fixed effects", "as batch 1", "as batch 2")}


def test_each_reconstruction_is_shown_in_its_row_and_column(tmp_path):
    figure = plot_reconstructions(IMAGES, tmp_path / "new" / "cells.png")
    assert matplotlib.image.imread(tmp_path / "new" / "cells.png").std() > 0.05
    axes = np.reshape(figure.axes, (3, 4))
    assert [axis.get_title() for axis in axes[0]] == list(IMAGES)
    for i in range(3):
        for j, title in enumerate(IMAGES):
            (image,) = axes[i, j].images
            np.testing.assert_array_equal(image.get_array(), IMAGES[title][i])
            assert image.get_clim() == (0, 1)


def test_truths_stand_below_their_column():
    truth = {"as batch 2": IMAGES["as batch 2"] / 2}
    figure = plot_reconstructions(IMAGES, truth=truth, names=["A", "B", "C"])
    axes = np.reshape(figure.axes, (6, 4))
    assert [axis.get_ylabel() for axis in axes[:, 0]] == ["A", "truth", "B", "truth", "C", "truth"]
    for i in range(3):
        assert [len(axis.images) for axis in axes[2 * i + 1]] == [0, 0, 0, 1]
        np.testing.assert_array_equal(axes[2 * i + 1, 3].images[0].get_array(), truth["as batch 2"][i])


@pytest.mark.parametrize(
    "images, options, message",
    [
        ({}, {}, "got none"),
        ({**IMAGES, "as batch 3": np.ones((2, 8, 8))}, {}, r"'as batch 3' \(2, 8, 8\)"),
        ({"real": np.ones((3, 1, 8, 8))}, {}, r"\(N, H, W\)"),
        (IMAGES, {"truth": {"as batch 9": np.ones((3, 8, 8))}}, r"truths for \['as batch 9'\]"),
        (IMAGES, {"names": ["A"]}, "there are 3 cells, but 1 names"),
    ],
)
def test_clear_errors_of_reconstructions(images, options, message):
    with pytest.raises(ValueError, match=message):
        plot_reconstructions(images, **options)


def test_latents_are_coloured_by_batch_and_by_phenotype(tmp_path):
    batch, label = np.repeat([0, 1, -1], 20), np.tile(["low", "high"], 30)
    apart = RNG.normal(size=(60, 5)) + 20 * batch[:, None]
    models = {"conventional": apart, "ARMED": RNG.normal(size=(60, 5))}
    figure = plot_latents(models, batch, label, ["May", "June"], tmp_path / "latents.png")
    assert (tmp_path / "latents.png").stat().st_size > 5000
    axes = np.reshape(figure.axes, (2, 2))
    assert [axis.get_title() for axis in axes[0]] == list(models)
    points, *keys = axes[0, 0].collections
    xy, colours = np.asarray(points.get_offsets()), points.get_facecolors()
    assert len(xy) == 60
    (first, second, unknown) = (tuple(key.get_facecolors()[0]) for key in keys)
    centre = {c: xy[(colours == c).all(1), 0] for c in (first, second, unknown)}
    assert [len(x) for x in centre.values()] == [20, 20, 20]
    spread = max(x.std() for x in centre.values())  # the batches lie on a line, -1, 0, 1, far apart: so must the dots
    assert np.sign(centre[second].mean() - centre[first].mean()) == np.sign(
        centre[first].mean() - centre[unknown].mean()
    )
    assert abs(centre[second].mean() - centre[first].mean()) > 5 * spread
    texts = [[text.get_text() for text in axis.get_legend().get_texts()] for axis in axes[:, -1]]
    assert texts == [["May", "June", "unknown"], ["high", "low"]]
    assert float(axes[0, 0].get_xlabel().split("(")[1].rstrip("%)")) > 90  # share of the variance
    assert float(axes[0, 1].get_xlabel().split("(")[1].rstrip("%)")) < 60


def test_more_batches_than_a_palette_has_get_colours_of_their_own():
    figure = plot_latents({"a": RNG.normal(size=(26, 2))}, np.arange(26), np.zeros(26))
    assert len({tuple(c) for c in figure.axes[0].collections[0].get_facecolors()}) == 26


@pytest.mark.parametrize("shape, message", [((60, 1), "two features or more"), ((59, 4), r"'a' have the shape \(59")])
def test_clear_errors_of_latents(shape, message):
    with pytest.raises(ValueError, match=message):
        plot_latents({"a": np.ones(shape)}, np.zeros(60, int), np.zeros(60))
    with pytest.raises(ValueError, match="no model"):
        plot_latents({}, np.zeros(60, int), np.zeros(60))


def test_bars_are_the_learned_scales_in_the_order_of_the_layers(tmp_path):
    rows = [("z", "bias", 0.1), ("z", "scale", 0.2), ("a", "bias", 0.3), ("a", "scale", 0.4), ("a", "scale", 0.6)]
    figure = plot_recon_scales(pd.DataFrame(rows, columns=["layer", "effect", "sd"]), tmp_path / "scales.png")
    assert (tmp_path / "scales.png").stat().st_size > 3000
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.get_xticklabels()] == ["z", "a"]
    heights = {bars.get_label(): [bar.get_height() for bar in bars] for bars in axis.containers}
    assert heights == {"scale": pytest.approx([0.2, 0.5]), "bias": pytest.approx([0.1, 0.3])}
    assert axis.containers[0][0].get_facecolor() == to_rgba("tab:blue")
    with pytest.raises(ValueError, match=r"got \['gain'\]"):
        plot_recon_scales(pd.DataFrame([("z", "gain", 1.0)], columns=["layer", "effect", "sd"]))


def test_300_batches_stay_readable(tmp_path):
    batch = np.repeat(np.arange(300), 2)
    latents, label = {"fixed": RNG.normal(size=(600, 3))}, np.array(["low", "high"] * 300)
    figure = plot_latents(latents, batch, label, [f"day {j}" for j in range(300)], tmp_path / "latents.png")
    above, below = (axis.get_legend() for axis in figure.axes)
    assert above.get_title().get_text().startswith("batch: 300") and not above.get_texts()
    assert [text.get_text() for text in below.get_texts()] == ["high", "low"]
    assert max(figure.get_size_inches()) < 8
    few = plot_latents({"fixed": latents["fixed"][:40]}, batch[:40], label[:40]).axes[0].get_legend()
    assert len(few.get_texts()) == 20
    figure.draw_without_rendering()
    for axis in figure.axes:  # a legend is whole, inside the figure
        box = axis.get_legend().get_window_extent()
        assert figure.bbox.contains(*box.p0) and figure.bbox.contains(*box.p1)


def test_more_columns_than_a_picture_can_show():
    images = {f"as batch {j}": IMAGES["real"] for j in range(300)}
    with pytest.warns(UserWarning, match="300 columns of 3 cells are more than a picture can show: the first 24"):
        figure = plot_reconstructions(images)
    assert len(figure.axes) == 24 * 3 and max(figure.get_size_inches()) < 40
