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
from matplotlib.image import imread

from monai_armed.visualize.saliency import plot_saliency


def test_rows_of_unequal_length_and_an_empty_map(tmp_path):
    image = np.random.default_rng(0).random((20, 20))
    region = np.zeros((20, 20), bool)
    region[5:9, 5:9] = True
    panels = [("AD", image, image - 0.5, region), ("CN", image, np.zeros_like(image), region)]
    path = plot_saliency([("site 1", panels), ("site 2", panels[:1])], tmp_path / "new" / "saliency.png", "Grad-CAM")
    drawn = imread(path)
    assert drawn.shape[0] > 300 and drawn[..., :3].std() > 0.05


def test_a_region_that_is_not_known_is_not_drawn(tmp_path, monkeypatch):
    image, region = np.random.default_rng(0).random((20, 20)), np.eye(20, dtype=bool)
    drawn = []
    monkeypatch.setattr("matplotlib.axes.Axes.contour", lambda self, roi, **options: drawn.append(roi))
    plot_saliency([("site 1", [("AD", image, image, None), ("CN", image, image, region)])], tmp_path / "saliency.png")
    assert len(drawn) == 1 and drawn[0] is region and (tmp_path / "saliency.png").is_file()
