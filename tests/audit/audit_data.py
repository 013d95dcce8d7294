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
"""Simulated images: a disc whose brightness tells the class and, if planted, a tint that tells the site."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image


def write_images(folder: Path, planted: bool, n: int = 120, seed: int = 0, size: int = 24) -> Path:
    """``list.csv`` with image, mask, label, site, subject (two images each) and sex, and the images."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, rows = np.random.default_rng(seed), []
    y, x = np.mgrid[:size, :size]
    for i in range(n):
        subject = i // 2
        site, label = subject % 3, subject // 3 % 2
        image = rng.normal(110, 20, (size, size, 3))
        disc = (y - rng.integers(8, size - 8)) ** 2 + (x - rng.integers(8, size - 8)) ** 2 < rng.uniform(4, 7) ** 2
        image[disc] += rng.normal(30, 20) + 30 * label
        image[..., 0] += 30 * (site - 1) * planted
        Image.fromarray(np.clip(image, 0, 255).astype("uint8")).save(folder / f"{i}.png")
        Image.fromarray(disc.astype("uint8") * 255).save(folder / f"{i}_mask.png")
        row = {"image": f"{i}.png", "mask": f"{i}_mask.png", "label": label, "site": f"site {site}"}
        rows.append(row | {"subject": f"s{subject}", "sex": "fm"[int(rng.integers(2))]})
    pd.DataFrame(rows).to_csv(folder / "list.csv", index=False)
    return folder / "list.csv"
