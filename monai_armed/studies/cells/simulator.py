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

"""Simulator of the melanoma study of the paper's section 3.4: cell images of 24 batches, with known truth.

Everything about it is simulated; :mod:`monai_armed.studies.cells.physics` and :mod:`monai_armed.studies.cells.cohort`
say which numbers had to be chosen. Images are 8-bit, as the melanoma set's are: rounding adds an s.d. of 0.001 to at
least 0.006 of texture and noise. (The real files look stretched one by one, most touch 0 and 255; that is not
imitated.) The same arguments give the same pixels on every machine, and the same files with the same version of Pillow.
"""

from __future__ import annotations

import io
import json
import os
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from monai_armed.data.simulation_folder import claim_folder, write_bytes
from monai_armed.studies.cells.ceilings import cell_ceilings
from monai_armed.studies.cells.cohort import MEAN_BATCH, SimulatedCell, draw_batches, draw_cells, draw_frame
from monai_armed.studies.cells.physics import compose, draw_optics

__all__ = ["SimulatedCells", "simulate_cells"]

_VERSION = 1  # raise it whenever a change alters the images
_README = """# SIMULATED phase-contrast images of melanoma-like cells

These images are simulated (`monai_armed.studies.cells.simulator.simulate_cells`). No cell was imaged; the
names of PDXs only stand for their class. `cells.csv` lists the images. The truth is in `truth`: `batch_free` holds
each image as the mean batch would have shown it, without gradient and noise; `cells.csv` what was drawn for each cell,
`batches.csv` for each batch, `ceilings.json` the AUROC that this truth allows. `SimulatedCells(folder)
.render_as(file, batch)` shows an image as another batch would.
"""


def simulate_cells(
    folder: str | os.PathLike[str],
    size: int = 64,
    frames: int = 3,
    cells_per_batch: int = 40,
    unseen_cells_per_batch: int = 20,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Write the simulated melanoma study: 13 seen batches and 11 unseen ones, named as the melanoma set's files.

    A simulation that was interrupted goes on with the images that are missing; a complete one is left as it is.

    Args:
        folder: folder to write to; made where it does not exist.
        size: height and width of the images in pixels; they are rendered at that size.
        frames: images of each cell, a minute apart (10 in the full study).
        cells_per_batch: cells of each seen batch.
        unseen_cells_per_batch: cells of each unseen batch.
        seed: seed of the study.
        progress: show a progress bar.

    Returns:
        the folder. It holds ``cells.csv`` (``file``, ``batch``, ``seen``, ``pdx``, ``cell``, ``frame``, ``label``), as
        :py:func:`monai_armed.studies.cells.read_cells` takes it, and the truth, see :class:`SimulatedCells`.

    Raises:
        ValueError: when a number is too small, or the folder holds something else or a simulation with other
            parameters.
    """
    parameters = {
        "size": size,
        "frames": frames,
        "cells_per_batch": cells_per_batch,
        "unseen_cells_per_batch": unseen_cells_per_batch,
        "seed": seed,
    }
    least = {"size": 16, "frames": 1, "cells_per_batch": 2, "unseen_cells_per_batch": 1, "seed": 0}
    for name, number in least.items():
        if parameters[name] < number:
            raise ValueError(f"{name} of the simulated cells must be at least {number}, got {parameters[name]}.")
    root = Path(folder)
    foreign = "images" if (root / "cells.csv").exists() or any(root.glob("*.png")) else ""
    marker = root / "truth" / "simulation.json"
    claim_folder(root, marker, parameters | {"version": _VERSION}, "simulated cells", foreign)
    ceilings = root / "truth" / "ceilings.json"
    if ceilings.exists():  # it is written last
        return root
    study = SimulatedCells(root)
    table = study.table
    for row in tqdm(table.to_dict("records"), desc="simulate cells", unit="image", disable=not progress):
        file = str(row["file"])
        if not (root / file).exists():  # the image is written last, so that its existence says all is there
            write_bytes(root / "truth" / "batch_free" / file, _png(study.render_as(file, None)))
            write_bytes(root / file, _png(study.render_as(file, str(row["batch"]))))
    batches = pd.DataFrame([{"batch": name} | asdict(batch) for name, batch in study.batches.items()])
    for path, text in {
        "README.md": _README,
        "truth/batches.csv": batches.to_csv(index=False),
        "truth/cells.csv": study.cell_truth.to_csv(index=False),
        "cells.csv": table.to_csv(index=False),
    }.items():
        write_bytes(root / path, text.encode())
    write_bytes(ceilings, json.dumps(cell_ceilings(root), indent=2).encode())
    return root


class SimulatedCells:
    """The truth about a folder of :func:`simulate_cells`; every image can be drawn again from the stored parameters.

    Args:
        folder: the folder.

    Raises:
        FileNotFoundError: when the folder holds no simulation.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        marker = Path(folder) / "truth" / "simulation.json"
        if not marker.is_file():
            raise FileNotFoundError(f"{marker} does not exist: give a folder that simulate_cells has written.")
        self.folder = Path(folder)
        parameters = json.loads(marker.read_text())
        self.seed, self.size, self.frames = parameters["seed"], parameters["size"], parameters["frames"]
        self.batches = draw_batches(self.seed)
        self.cells = draw_cells(self.seed, parameters["cells_per_batch"], parameters["unseen_cells_per_batch"])

    @cached_property
    def _frames(self) -> dict[str, tuple[SimulatedCell, int]]:
        return {
            f"{cell.name}_f{cell.first_frame + frame:05d}.png": (cell, frame)
            for cell in self.cells
            for frame in range(self.frames)
        }

    @property
    def table(self) -> pd.DataFrame:
        """A row for each image, as in ``cells.csv``."""
        rows = [
            {
                "file": file,
                "batch": cell.batch,
                "seen": int(cell.seen),
                "pdx": cell.pdx,
                "cell": cell.name,
                "frame": cell.first_frame + frame,
                "label": cell.label,
            }
            for file, (cell, frame) in self._frames.items()
        ]
        return pd.DataFrame(rows)

    @property
    def cell_truth(self) -> pd.DataFrame:
        """A row for each cell: what was drawn for it. Lengths are in pixels of a 256 px frame."""
        rows = [
            {
                "cell": cell.name,
                "batch": cell.batch,
                "seen": int(cell.seen),
                "pdx": cell.pdx,
                "label": cell.label,
                "granule_brightness": cell.shape.brightness,
                "pseudopodia": len(cell.shape.pseudopodia),
                "radius": float(np.sqrt(cell.shape.semi_axes.prod())),
                "elongation": float(cell.shape.semi_axes[0] / cell.shape.semi_axes[1]),
                "others": len(cell.others),
            }
            for cell in self.cells
        ]
        return pd.DataFrame(rows)

    def render_as(self, file: str, batch: str | None, noise: bool = True) -> NDArray[np.float64]:
        """
        An image of the study as a batch shows it. The frame's own standard draws (its background and contrast within
        the batch, texture, noise) are the same in every batch, scaled as the batch scales them.

        Args:
            file: file name of the image.
            batch: date of the batch; None for the batch-free truth, the mean batch without gradient and draws.
            noise: with False, all of the frame's own draws are left out: what a batch shows on average.

        Returns:
            image (size, size), 0 to 1, not rounded.

        Raises:
            ValueError: when the study has no such file or batch.
        """
        if file not in self._frames:
            raise ValueError(f"the simulated study in {self.folder} has no image {file!r}.")
        if batch is not None and batch not in self.batches:
            raise ValueError(f"the simulated study has no batch {batch!r}; its batches are {list(self.batches)}.")
        cell, frame = self._frames[file]
        contents, draws = draw_frame(cell, frame, self.size, self.seed)
        optics = draw_optics(contents, self.size)
        if batch is None:
            return compose(optics, MEAN_BATCH, None)
        return compose(optics, self.batches[batch], draws if noise else None)


def _png(image: NDArray[np.float64]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(buffer, format="png")
    return buffer.getvalue()
