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

"""What is said of how the images were resized."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from monai_armed.audit.data_list import Samples
from monai_armed.audit.images import Images, sizes_said, usual_preprocessing


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ([(16, 16), (32, 32)], "2 sizes, 16 x 16 to 32 x 32, resized to 8 x 8"),
        ([(16, 16)], "1 size, 16 x 16, resized to 8 x 8"),
        (
            [(16, 16), (16, 24)],
            "2 sizes, 16 x 16 to 16 x 24, resized to 8 x 8; proportions changed by up to a factor of 1.50",
        ),
    ],
)
def test_changed_proportions_are_said(shapes, says, tmp_path):
    paths = []
    for k, shape in enumerate(shapes):
        Image.fromarray(np.zeros(shape[::-1], "uint8")).save(tmp_path / f"{k}.png")
        paths.append(str(tmp_path / f"{k}.png"))
    n = len(paths)
    names = np.array([f"s{k}" for k in range(n)])
    samples = Samples(np.zeros(n, int), names, names, pd.DataFrame(index=range(n)), np.array(paths))
    images = Images(samples, usual_preprocessing([8, 8], [0, 255], False))
    assert len(list(images.batches())) == 1
    assert sizes_said(images) == says


@pytest.mark.parametrize("rows_first", [False, True])
def test_pictures_have_the_axes_that_were_asked_for(rows_first, tmp_path):
    picture = np.arange(0, 240, 10, "uint8").reshape(4, 6)  # four rows
    Image.fromarray(picture).save(tmp_path / "a.png")
    size = [4, 6] if rows_first else [6, 4]
    read = usual_preprocessing(size, [0, 255], False, rows_first)({"image": str(tmp_path / "a.png")})["image"]
    np.testing.assert_allclose(read[0] * 255, picture if rows_first else picture.T, atol=1e-4)


def test_another_preprocessing_is_not_guessed_at():
    assert sizes_said(None) == "as the preprocessing makes them"
