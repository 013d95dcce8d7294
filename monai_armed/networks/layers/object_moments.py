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

import itertools

import torch
import torch.nn as nn
import torch.nn.functional as F

from .image_light import light_plane, measure_light

__all__ = ["ObjectMoments"]

_FRAME = 64  # all lengths below are in pixels of an image of this side
_SMOOTHING = 0.8
_EDGE, _EDGE_WIDTH = 0.5, 0.06  # of the scale: what is brighter is the object
_WINDOW = 0.75  # half-width, of half the image: beyond it lie other objects
_DEPTH = 1.5  # over which the mask is averaged, so that it tells how deep inside a pixel lies
_INSIDE, _INSIDE_WIDTH = 0.9, 0.03
_RINGS = ((0.08, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 0.9))  # from the halo inwards
_BANDS = (0.0, 0.5, 0.8, 1.2, 1.8, 2.7)  # s.d.s of the Gaussians between which detail is measured
_LEAST_ENERGY = 3e-4


class ObjectMoments(nn.Module):
    """
    Size, shape, profile and texture of the bright object in the middle of a grey image, as logarithms of moments under
    a soft mask. Nothing of it is learned, and nothing depends on the object's direction.

    Values are relative to the image's background and scale, see
    :py:func:`monai_armed.networks.layers.image_light.measure_light`: a cluster's background and gain drop out. What a
    cluster does otherwise, blur to detail, a halo to the rings, multiplies moments, so it is a shift of their
    logarithms, the same for all objects, which linear erasure and random intercepts can take out: as the mean of the
    cepstrum is taken out for a microphone's channel in speech.

    Example:
        >>> moments = ObjectMoments()
        >>> moments(images).shape, len(moments.names)
        (torch.Size([8, 22]), 22)
    """

    names: tuple[str, ...] = (
        *("area", "elongation", "spread", "mean", "inner_mean"),
        *(f"ring_{low:g}" for low, _ in _RINGS),
        *("inner_root_mean", "inner_square_mean", "inner_fourth_mean"),
        *(f"{place}_detail_{high:g}" for high in _BANDS[1:] for place in ("inner", "all")),
    )

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """
        Args:
            x: (B, 1, H, W).

        Returns:
            moments (B, 22) in the order of ``names``.
        """
        light = measure_light(x)
        relative = x - light_plane(light.background, x.shape[2:])
        relative = relative * (-light.log_scale).exp()[:, None, None, None]
        pixel = _FRAME / min(x.shape[2:])
        smooth = _gaussian(relative, _SMOOTHING / pixel)
        window, grid = _window(x), _grid(x)
        mask = ((smooth - _EDGE) / _EDGE_WIDTH).sigmoid() * window
        depth = _gaussian(mask, _DEPTH / pixel)
        inside = ((depth - _INSIDE) / _INSIDE_WIDTH).sigmoid() * mask
        rings = [
            ((depth - low) / _INSIDE_WIDTH).sigmoid() * ((high - depth) / _INSIDE_WIDTH).sigmoid() * window
            for low, high in _RINGS
        ]
        positive = relative.clamp(min=0.02)
        found = [
            *_shape(mask, grid, pixel),
            _mean(mask, relative, pixel).clamp(min=0.05).log(),
            *(_mean(m, relative, pixel).clamp(min=0.05).log() for m in (inside, *rings)),
            *(_mean(inside, positive.pow(p), pixel).clamp(min=1e-3).log() / p for p in (0.5, 2.0, 4.0)),
        ]
        outside = (1 - ((_gaussian(smooth, 2 / pixel) - 0.12) / 0.02).sigmoid()) * (1 - mask)
        scales = [_gaussian(relative, s / pixel) if s else relative for s in _BANDS]
        for fine, coarse in itertools.pairwise(scales):
            energy = (fine - coarse).square()
            noise = _mean(outside, energy, pixel)
            found += [_log_energy(_mean(m, energy, pixel) - noise) for m in (inside, mask)]
        return torch.stack(found, dim=1)


def _grid(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x and y of the pixels, from -1 to 1."""
    y, z = (((torch.arange(n) + 0.5) / n * 2 - 1).to(x) for n in x.shape[2:])
    return z[None, :], y[:, None]


def _window(x: torch.Tensor) -> torch.Tensor:
    a, b = _grid(x)
    return (-(((a.square() + b.square()) / _WINDOW**2) ** 4)).exp()


def _gaussian(x: torch.Tensor, sd: float) -> torch.Tensor:
    reach = int(3 * sd + 1)
    kernel = (-0.5 * (torch.arange(-reach, reach + 1).to(x) / sd).square()).exp()
    kernel = kernel / kernel.sum()
    padded = F.pad(x, (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel[None, None, None, :]), kernel[None, None, :, None])


def _mean(mask: torch.Tensor, values: torch.Tensor, pixel: float) -> torch.Tensor:
    """Mean under a soft mask, towards zero where it holds less than a pixel or so."""
    return (mask * values).sum(dim=(1, 2, 3)) / (mask.sum(dim=(1, 2, 3)) + 1 / pixel**2)


def _log_energy(energy: torch.Tensor) -> torch.Tensor:
    """Half the logarithm, bent so that what noise takes below zero stays finite."""
    return 0.5 * (F.softplus(energy / _LEAST_ENERGY) * _LEAST_ENERGY + 1e-8).log()


def _shape(mask: torch.Tensor, grid: tuple[torch.Tensor, torch.Tensor], pixel: float) -> list[torch.Tensor]:
    """Log area, log ratio of the axes, and log spread of the mask about its centre beside its area."""
    total = mask.sum(dim=(1, 2, 3)) + 1e-3 / pixel**2

    def mean(values: torch.Tensor) -> torch.Tensor:
        return (mask * values).sum(dim=(1, 2, 3)) / total

    x, y = (axis - mean(axis)[:, None, None, None] for axis in grid)
    xx, yy, xy = mean(x.square()), mean(y.square()), mean(x * y)
    trace = (xx + yy).clamp(min=1e-5)
    split = ((xx - yy).square() + 4 * xy.square()).sqrt()
    area = (total / mask[0].numel()).log()
    return [area, 0.5 * ((trace + split) / (trace - split).clamp(min=1e-5)).log(), trace.log() - area]
