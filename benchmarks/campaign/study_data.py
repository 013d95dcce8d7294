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

"""Very small data for each bundle, drawn at random: whatever a network learns from them means nothing."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from PIL import Image

from monai_armed.studies.mci.simulator import simulate_conversion
from monai_armed.studies.spirals.simulator import simulate_spirals

SEEN_SITES, UNSEEN_SITES, SUBJECTS, UNSEEN_SUBJECTS = ("002", "005", "016", "020"), ("U01", "U02"), 8, 4
AFFINE = np.array([[4.0, 0, 0, -78], [0, 4, 0, -18], [0, 0, 4, -64], [0, 0, 0, 1]])
BATCHES, CELLS, CELL_SIZE = ("150312", "150413", "150506"), 10, 64


def ad_mri(folder: Path) -> Path:
    """A BIDS tree of volumes with a bright ball, larger in AD, that reach around the coronal plane y = -6 mm."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*map(np.arange, (40, 6, 40)), indexing="ij"), -1)
    rows = []
    for site in (*SEEN_SITES, *UNSEEN_SITES):
        for number in range(SUBJECTS if site in SEEN_SITES else UNSEEN_SUBJECTS):
            subject, label = f"sub-{site}x{number}", number % 2
            ball = np.linalg.norm(grid - [20, 3, 16], axis=-1) < 8 + 2 * label
            volume = (rng.normal(100, 20, ball.shape) + 200 * ball).astype(np.float32)
            file = folder / subject / "anat" / f"{subject}_T1w.nii.gz"
            file.parent.mkdir(parents=True)
            image = nib.Nifti1Image(volume, AFFINE)
            image.header.set_xyzt_units("mm")
            nib.save(image, file)
            role, maker = ("seen" if site in SEEN_SITES else "unseen"), ("Siemens" if number < 4 else "GE")
            rows.append([subject, site, ("CN", "AD")[label], role, maker])
    columns = ["participant_id", "site", "diagnosis", "site_role", "manufacturer"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "participants.tsv", sep="\t", index=False)
    return folder


def cell_aec(folder: Path) -> Path:
    """Grey images of ellipses, named as those of the melanoma set, and a table of them."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:CELL_SIZE, :CELL_SIZE] - CELL_SIZE / 2
    rows = []
    for k, batch in enumerate(BATCHES):
        for cell in range(CELLS):
            label = cell % 2
            name = f"{batch}_{('m498', 'm405')[label]}_s0{cell}_t1_x1_y{cell}_t1_t7Ready_f00001.png"
            body = (x / (20 + 6 * label)) ** 2 + (y / 14) ** 2 < 1
            pixels = 30 + 20 * k + 120 * body + rng.normal(0, 5, body.shape)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name)
            rows.append([name, batch, label])
    pd.DataFrame(rows, columns=["file", "batch", "label"]).to_csv(folder / "cells.csv", index=False)
    return folder


def mci(folder: Path) -> Path:
    """The simulated MCI conversion study as a table in the form of ADNIMERGE.csv."""
    simulate_conversion(0).write(folder)
    return folder / "ADNIMERGE.csv"


def spirals(folder: Path) -> Path:
    """The three simulations with three clusters of 60 points."""
    folder.mkdir()
    for number in (1, 2, 3):
        simulate_spirals(number, 3, 60, seed=5).save(folder / f"sim{number}.npz")
    return folder


DATA = {"ad_mri": ad_mri, "cell_aec": cell_aec, "mci": mci, "spirals": spirals}
