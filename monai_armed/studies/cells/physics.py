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

"""How a simulated phase-contrast microscope shows a melanoma-like cell.

All lengths are in pixels of a 256 px frame and all grey values in 0..1, at whatever size an image is rendered. The
numbers follow a definition that was fixed before any network was trained. What it leaves open, and how it was chosen:

- A pixel averages over its area, so renderings below 128 px are computed on a finer grid and averaged. Noise is not:
  its s.d. is that of a pixel of the rendered image at every size (the camera's), and its correlation length scales.
- The rim is a ridge of s.d. 5 px on the core, 10 px inside the edge; in cells too thin for that, at 0.6 of their
  smaller semi-axis, so small cells are bright all over, as real ones are. The edge is a logistic step (1.5 px).
- The outline departs from an ellipse by 3 % (s.d.) in each of the angular orders 2 to 5.
- The halo rises over 3 px to its maximum, 6 px outside the edge. It and the specular highlight have amplitudes of their
  own, so the batch's contrast does not act on them. The highlight lies 0.35 of the way to the edge, up the illumination
  gradient, with an s.d. of 0.2 of the smaller semi-axis.
- A pseudopodium is dark between bright flanks, as thin processes are in phase contrast, 40 to 120 px long and gently
  bent. Dark and bright nearly cancel, so that at 64 px it adds at most about 0.02, little more than the noise.
- The gradient is what the background gains from one edge of the frame to the other.
- A second cell (of no phenotype: granule brightness 0.30, no pseudopodia) or a piece of debris, with even odds, has its
  centre 105 to 140 px from the first cell's.
- Values are clipped to 0..1, as a camera does; an image's own background is at least 0.01.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d, gaussian_filter
from scipy.special import expit

__all__ = ["FRAME", "Batch", "Cell", "FrameDraws", "Optics", "Shape", "compose", "draw_optics"]

Array = NDArray[np.float64]

FRAME = 256.0
"""Side of the frame in which everything is designed, in pixels."""

CORE, RIM, RIM_DEPTH, RIM_SD = 0.25, 0.55, 10.0, 5.0
EDGE_WIDTH = 1.5
HALO_DISTANCE, HALO_RISE, HALO_DECAY = 6.0, 3.0, 8.0
TEXTURE_LENGTH = 2.0
BACKGROUND_SD, CONTRAST_SD = 0.02, 0.10  # of the images of one batch
LOWEST_BACKGROUND = 0.01
PSEUDOPODIUM = ((2.6, 0.100), (1.5, -0.150))  # s.d. across and amplitude of the bright and of the dark part


@dataclass(frozen=True)
class Batch:
    """What a day's microscope does to every image of it.

    Args:
        background: grey value without a cell.
        gradient: gain of the background across the frame.
        angle: direction of that gradient in radians.
        texture: s.d. of the correlated background.
        noise: s.d. of the white noise.
        halo: its amplitude.
        contrast: factor on all that the cell adds to the background.
        highlight: amplitude of the specular highlight.
        blur: s.d. of the optical blur in px.
    """

    background: float
    gradient: float
    angle: float
    texture: float
    noise: float
    halo: float
    contrast: float
    highlight: float
    blur: float


@dataclass(frozen=True)
class Shape:
    """Outline and contents of one cell in one frame.

    Args:
        centre: x and y from the middle of the frame in px.
        semi_axes: of the ellipse in px, the larger first.
        angle: of the larger axis in radians.
        waves: complex amplitudes of the outline's angular orders 2, 3, ..., relative to the radius.
        granules: x and y of each in units of the semi-axes, (N, 2).
        granule_sd: of each in px, (N,).
        brightness: of the granules.
        pseudopodia: paths in px from the middle of the frame, each (points, 2), evenly spaced by about a px or two.
    """

    centre: Array
    semi_axes: Array
    angle: float
    waves: NDArray[np.complex128]
    granules: Array
    granule_sd: Array
    brightness: float
    pseudopodia: tuple[Array, ...] = ()


@dataclass(frozen=True)
class Cell:
    """What is in a frame: the cell in its middle, and what lies at the edge."""

    main: Shape
    others: tuple[Shape, ...] = ()


@dataclass(frozen=True)
class FrameDraws:
    """A frame's own standard normal draws: two numbers and two fields (H, W); they do not depend on the batch."""

    background: float
    contrast: float
    texture: Array
    noise: Array


@dataclass(frozen=True)
class Optics:
    """What the cells of a frame contribute, each (side, side), on the fine grid; see :func:`compose`."""

    body: Array
    halo: Array
    main: Shape
    factor: int


def draw_optics(cell: Cell, size: int) -> Optics:
    """The batch-independent part of an image.

    Args:
        cell: contents of the frame.
        size: side of the image to be rendered.
    """
    factor = max(1, -(-128 // size))
    axis = _axis(size * factor)
    body, halo = np.zeros((len(axis), len(axis))), np.zeros((len(axis), len(axis)))
    for shape in (cell.main, *cell.others):
        depth = _depth(shape, axis)
        inside = expit(depth / EDGE_WIDTH)
        rim_depth = min(RIM_DEPTH, 0.6 * shape.semi_axes[1])
        signal = inside * (CORE + (RIM - CORE) * np.exp(-0.5 * ((depth - rim_depth) / RIM_SD) ** 2))
        places = shape.centre + _rotate(shape.granules * shape.semi_axes, shape.angle)
        signal += _blobs(axis, places, shape.granule_sd, np.full(len(places), shape.brightness))
        for path in shape.pseudopodia:
            signal += (1 - inside) * _process(axis, path)
        body += signal
        halo = np.maximum(halo, _halo(-depth) * (1 - inside))
    return Optics(body, halo, cell.main, factor)


def compose(optics: Optics, batch: Batch, draws: FrameDraws | None) -> Array:
    """
    The image of a frame as a batch shows it.

    Args:
        optics: the batch-independent part.
        batch: what the batch does to it.
        draws: the frame's own draws; None leaves out noise, texture, and the image's own background and contrast.

    Returns:
        image (size, size), 0 to 1, row 0 at the top.
    """
    side = len(optics.body)
    axis = _axis(side)
    background, contrast = batch.background, batch.contrast
    if draws is not None:
        background = max(LOWEST_BACKGROUND, background + BACKGROUND_SD * draws.background)
        contrast *= 1 + CONTRAST_SD * draws.contrast
    signal = contrast * optics.body + batch.halo * optics.halo + batch.highlight * _highlight(optics, batch, axis)
    signal = gaussian_filter(signal, batch.blur * side / FRAME, mode="nearest")
    size = side // optics.factor
    image = signal.reshape(size, optics.factor, size, optics.factor).mean(axis=(1, 3))
    towards = _axis(size) / FRAME
    image += background + batch.gradient * (np.cos(batch.angle) * towards + np.sin(batch.angle) * towards[:, None])
    if draws is not None:
        image += batch.texture * _correlated(draws.texture, TEXTURE_LENGTH * size / FRAME) + batch.noise * draws.noise
    return np.clip(image, 0.0, 1.0)


def _axis(side: int) -> Array:
    """Coordinates of the pixels' middles in px of the frame, 0 in its middle."""
    return (np.arange(side) + 0.5) * FRAME / side - FRAME / 2


def _rotate(points: Array, angle: float) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    return points @ np.array([[c, s], [-s, c]])


def _depth(shape: Shape, axis: Array) -> Array:
    """Distance to the outline in px, positive inside, to first order (level set over its gradient)."""
    x, y = axis[None, :] - shape.centre[0], axis[:, None] - shape.centre[1]
    c, s = np.cos(shape.angle), np.sin(shape.angle)
    u, v = (c * x + s * y) / shape.semi_axes[0], (c * y - s * x) / shape.semi_axes[1]
    radius = np.sqrt(u**2 + v**2) + 1e-9
    direction = (u + 1j * v) / radius
    outline = np.ones_like(radius)
    power = direction
    for wave in shape.waves:
        power = power * direction
        outline += (wave * power).real
    slope = np.sqrt((u / shape.semi_axes[0]) ** 2 + (v / shape.semi_axes[1]) ** 2) / radius
    return (outline - radius) / slope


def _halo(distance: Array) -> Array:
    beyond = distance - HALO_DISTANCE
    return np.where(beyond > 0, np.exp(-np.maximum(beyond, 0) / HALO_DECAY), np.exp(-0.5 * (beyond / HALO_RISE) ** 2))


def _blobs(axis: Array, places: Array, sd: Array, amplitude: Array) -> Array:
    """Sum of isotropic Gaussians at places (N, 2)."""
    columns, rows = (np.exp(-0.5 * ((axis - places[:, k, None]) / sd[:, None]) ** 2) for k in (0, 1))
    return (amplitude[:, None] * rows).T @ columns


def _process(axis: Array, path: Array) -> Array:
    """A pseudopodium: a chain of Gaussians so dense that their sum is a smooth strand."""
    spacing = np.hypot(*(path[1] - path[0]))
    return np.sum(
        [
            _blobs(axis, path, np.full(len(path), sd), np.full(len(path), height * spacing / (sd * np.sqrt(2 * np.pi))))
            for sd, height in PSEUDOPODIUM
        ],
        axis=0,
    )


def _highlight(optics: Optics, batch: Batch, axis: Array) -> Array:
    shape = optics.main
    direction = np.array([np.cos(batch.angle), np.sin(batch.angle)])
    place = shape.centre + 0.35 * shape.semi_axes[1] * direction
    return _blobs(axis, place[None], np.array([0.2 * shape.semi_axes[1]]), np.ones(1))


def _correlated(white: Array, length: float) -> Array:
    """White noise smoothed by a Gaussian of this s.d. in pixels, with an s.d. of 1 again."""
    reach = np.arange(-int(4 * length + 1), int(4 * length + 1) + 1)
    kernel = np.exp(-0.5 * (reach / length) ** 2)
    kernel /= np.sqrt((kernel**2).sum())
    return correlate1d(correlate1d(white, kernel, axis=0, mode="wrap"), kernel, axis=1, mode="wrap")
