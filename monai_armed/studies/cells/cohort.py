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

"""Which cells are imaged on which day in the simulated melanoma study.

Numbers that the definition of the study leaves open: a seen batch has one or two PDXs of each class and at least one
cell of each; an unseen one has one to three of the seven PDXs; the PDX of a cell is one of its batch's at random. Size
and elongation factors of a PDX are 1 + 0.1 N(0, 1). Elongation is at least 1, granule brightness at least 0.02. There
is something at the edge in all frames of a fifth of the cells. From frame to frame a cell turns by 2 degrees, moves by
1.5 px, swells by 1.5 % and stirs its granules by 4 % of the semi-axes (s.d.s around the cell's mean); its pseudopodia
turn with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from monai_armed.studies.cells.images import METASTATIC_EFFICIENCY
from monai_armed.studies.cells.physics import Batch, Cell, FrameDraws, Shape

__all__ = ["MEAN_BATCH", "SimulatedCell", "draw_batches", "draw_cells", "draw_frame"]

NUM_SEEN, NUM_UNSEEN = 13, 11
RADIUS, RADIUS_LOG_SD, PDX_SD = 34.0, 0.27, 0.10
GRANULES, GRANULE_BRIGHTNESS, GRANULE_BRIGHTNESS_SD = 25, (0.25, 0.35), 0.08
PSEUDOPODIA = (0.6, 1.4)

MEAN_BATCH = Batch(0.075, 0.0, 0.0, 0.012, 0.006, 0.08, 1.0, 0.15, 1.2)
"""The mean of the batches' distributions, without a gradient: how the batch-free truth is shown (without noise)."""


@dataclass(frozen=True)
class SimulatedCell:
    """A cell of the study.

    Args:
        name: as in the melanoma set's file names, up to the frame.
        batch: date, such as ``"200106"``.
        pdx: name of the PDX.
        label: 1 high, 0 low metastatic efficiency.
        seen: whether its batch is a seen one.
        shape: its mean over time.
        others: what lies at the edge.
        first_frame: number of its first frame.
        key: seeds everything that is drawn for it.
    """

    name: str
    batch: str
    pdx: str
    label: int
    seen: bool
    shape: Shape
    others: tuple[Shape, ...]
    first_frame: int
    key: tuple[int, int]


def _rng(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def draw_batches(seed: int) -> dict[str, Batch]:
    """Draw the 24 batches, by date; the first 13 are the seen ones."""
    dates = pd.date_range("2020-01-06", periods=NUM_SEEN + NUM_UNSEEN, freq="14D").strftime("%y%m%d")
    batches = {}
    for index, date in enumerate(dates):
        rng = _rng(seed, 0, index)
        batches[date] = Batch(
            background=rng.uniform(0.03, 0.12),
            gradient=rng.uniform(0.0, 0.03),
            angle=rng.uniform(0.0, 2 * np.pi),
            texture=rng.uniform(0.006, 0.018),
            noise=rng.uniform(0.002, 0.010),
            halo=rng.uniform(0.035, 0.125),
            contrast=float(np.clip(rng.normal(1.0, 0.2), 0.5, 1.5)),
            highlight=rng.exponential(0.15),
            blur=rng.uniform(0.6, 1.8),
        )
    return batches


def draw_cells(seed: int, cells_per_batch: int, unseen_cells_per_batch: int) -> list[SimulatedCell]:
    """
    Args:
        seed: seed of the study.
        cells_per_batch: cells of each seen batch, at least 2.
        unseen_cells_per_batch: cells of each unseen batch, at least 1.
    """
    factors = {name: 1 + PDX_SD * _rng(seed, 1, k).standard_normal(2) for k, name in enumerate(METASTATIC_EFFICIENCY)}
    classes = [[name for name, label in METASTATIC_EFFICIENCY.items() if label == wanted] for wanted in (0, 1)]
    cells = []
    for index, date in enumerate(draw_batches(seed)):
        rng, seen = _rng(seed, 2, index), index < NUM_SEEN
        share = rng.beta(1.5, 1.5)
        if seen:
            chosen = [list(rng.choice(names, rng.integers(1, 3), replace=False)) for names in classes]
            number = cells_per_batch
            high = int(np.clip(rng.binomial(number, share), 1, number - 1))
        else:
            drawn = list(rng.choice(list(METASTATIC_EFFICIENCY), rng.integers(1, 4), replace=False))
            chosen = [[name for name in drawn if METASTATIC_EFFICIENCY[name] == wanted] for wanted in (0, 1)]
            number = unseen_cells_per_batch
            high = int(rng.binomial(number, share)) if chosen[0] and chosen[1] else number * bool(chosen[1])
        labels = rng.permutation(np.repeat([1, 0], [high, number - high]))
        for k, label in enumerate(labels.tolist()):
            pdx = str(chosen[label][rng.integers(len(chosen[label]))])
            cells.append(_draw_cell(seed, (index, k), date, pdx, seen, factors[pdx]))
    return cells


def _draw_cell(seed: int, key: tuple[int, int], date: str, pdx: str, seen: bool, factors: np.ndarray) -> SimulatedCell:
    rng, label = _rng(seed, 3, *key), METASTATIC_EFFICIENCY[pdx]
    brightness = max(0.02, rng.normal(GRANULE_BRIGHTNESS[label], GRANULE_BRIGHTNESS_SD))
    shape = _draw_shape(rng, brightness, *factors)
    paths = tuple(_draw_pseudopodium(rng, shape) for _ in range(rng.poisson(PSEUDOPODIA[label])))
    others: tuple[Shape, ...] = ()
    if rng.random() < 0.2:
        other = _draw_shape(rng, float(np.mean(GRANULE_BRIGHTNESS)), 1.0, 1.0)
        if rng.random() < 0.5:  # debris: a small blob without granules
            axes = rng.uniform(3.0, 8.0, 2)
            other = replace(other, semi_axes=np.sort(axes)[::-1], brightness=0.0)
        bearing = rng.uniform(0.0, 2 * np.pi)
        others = (replace(other, centre=rng.uniform(105, 140) * np.array([np.cos(bearing), np.sin(bearing)])),)
    x, y = rng.integers(200, 2000, 2)
    start, stop = rng.integers(0, 60), rng.integers(150, 240)
    name = f"{date}_{pdx}_s{1 + key[1] // 10:02d}_t{start}_x{x}_y{y}_t{stop}_t7Ready"
    shape = replace(shape, pseudopodia=paths)
    return SimulatedCell(name, date, pdx, label, seen, shape, others, int(rng.integers(0, 100)), key)


def _draw_shape(rng: np.random.Generator, brightness: float, size: float, elongation: float) -> Shape:
    radius = RADIUS * size * np.exp(RADIUS_LOG_SD * rng.standard_normal())
    round_one = rng.random() < 0.68
    ratio = max(1.0, elongation * (rng.normal(1.1, 0.06) if round_one else rng.uniform(1.3, 2.3)))
    waves = 0.03 * (rng.standard_normal(4) + 1j * rng.standard_normal(4)) / np.sqrt(2)
    distance, bearing = 0.78 * np.sqrt(rng.random(GRANULES)), rng.uniform(0, 2 * np.pi, GRANULES)
    return Shape(
        centre=np.zeros(2),
        semi_axes=radius * np.array([np.sqrt(ratio), 1 / np.sqrt(ratio)]),
        angle=rng.uniform(0, np.pi),
        waves=waves,
        granules=np.stack([distance * np.cos(bearing), distance * np.sin(bearing)], axis=1),
        granule_sd=rng.uniform(2.0, 3.5, GRANULES),
        brightness=float(brightness),
    )


def _draw_pseudopodium(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Path of a process from under the outline, bent quadratically, in the cell's own directions, (points, 2)."""
    bearing, length, bend = rng.uniform(0, 2 * np.pi), rng.uniform(40.0, 120.0), 0.15 * rng.standard_normal()
    root = 0.9 * shape.semi_axes * np.array([np.cos(bearing), np.sin(bearing)])
    forwards = root / np.hypot(*root)
    along = np.arange(0.0, length, 1.5)
    return root + along[:, None] * forwards + (bend * along**2 / length)[:, None] * forwards[::-1] * [-1, 1]


def draw_frame(cell: SimulatedCell, frame: int, size: int, seed: int) -> tuple[Cell, FrameDraws]:
    """
    Args:
        cell: a cell of the study.
        frame: number of the frame, from 0.
        size: side of the image in pixels.
        seed: seed of the study.

    Returns:
        the contents of the frame and its own standard draws.
    """
    rng = _rng(seed, 4, *cell.key, frame)
    shape = cell.shape
    angle = shape.angle + np.deg2rad(2.0) * rng.standard_normal()
    centre = 1.5 * rng.standard_normal(2)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    stirred = shape.granules + 0.04 * rng.standard_normal(shape.granules.shape)
    moved = replace(
        shape,
        centre=centre,
        angle=angle,
        semi_axes=shape.semi_axes * (1 + 0.015 * rng.standard_normal()),
        granules=stirred,
        pseudopodia=tuple(centre + path @ rotation for path in shape.pseudopodia),
    )
    draws = FrameDraws(
        float(rng.standard_normal()),
        float(rng.standard_normal()),
        rng.standard_normal((size, size)),
        rng.standard_normal((size, size)),
    )
    return Cell(moved, cell.others), draws
