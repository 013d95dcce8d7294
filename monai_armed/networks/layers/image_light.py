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

from typing import NamedTuple

import numpy as np
import torch

from ...utils.cluster_index import can_look

__all__ = ["ImageLight", "light_plane", "measure_light"]

_ITERATIONS = 5  # of the robust fit; the coefficients then move by less than the noise of a pixel
_TUKEY = 3.0  # s.d.s beyond which a pixel is no background
_GATE = 4.0  # s.d.s of the background at which a pixel counts half as content


class ImageLight(NamedTuple):
    """Light of images: of their background, and of what lies on it.

    Args:
        background: grey value in the middle, and its gain from the left edge to the right and from the top to the
            bottom, (B, 3).
        noise: robust s.d. of the background, (B,).
        log_scale: logarithm of how far the content is from the background, in grey values, (B,).
        log_area: logarithm of the share of the image that the content takes, (B,).
    """

    background: torch.Tensor
    noise: torch.Tensor
    log_scale: torch.Tensor
    log_area: torch.Tensor


def _coordinates(size: torch.Size, like: torch.Tensor) -> torch.Tensor:
    """1, x and y of every pixel, the latter from -0.5 to 0.5, (H * W, 3)."""
    y, x = (((torch.arange(n) + 0.5) / n - 0.5).to(like) for n in size)
    grid = torch.stack(torch.broadcast_tensors(torch.ones(()).to(like), x[None, :], y[:, None]), dim=-1)
    return grid.flatten(0, 1)


def light_plane(background: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """Images (B, 1, H, W) of backgrounds (B, 3), see :py:class:`ImageLight`; ``size`` is (H, W)."""
    return (background @ _coordinates(size, background).T).unflatten(1, (1, *size))


@torch.no_grad()
def measure_light(x: torch.Tensor) -> ImageLight:
    """
    The light of grey images whose background is a plane and fills half of the image or more. The plane is fitted by
    least squares with Tukey's weights, which leave out what is no background. Of the deviations r from it, weighted
    with r^2 / (r^2 + (4 noise)^2), the scale is sum r^2 / sum abs r and the area (sum abs r)^2 / sum r^2: of an even
    patch its brightness and its number of pixels, without a threshold or a mask.

    Args:
        x: (B, 1, H, W).

    Raises:
        ValueError: when the images have another shape, or a pixel is not finite.
    """
    if x.ndim != 4 or x.shape[1] != 1:
        raise ValueError(f"light is measured in grey images (B, 1, H, W), got the shape {tuple(x.shape)}.")
    if can_look(x) and not x.isfinite().all():
        raise ValueError("light is measured in images without NaN or infinite pixels: look for damaged files.")
    values = x.flatten(1).to(torch.promote_types(x.dtype, torch.float32))
    grid = _coordinates(x.shape[2:], values)
    products = (grid[:, :, None] * grid[:, None, :]).flatten(1)
    plane = torch.cat([_median(values)[:, None], torch.zeros_like(values[:, :2])], dim=1)
    for _ in range(_ITERATIONS):
        rest = values - plane @ grid.T
        weight = (1 - (rest / (_TUKEY * _robust_sd(rest)[:, None])).square()).clamp(min=0).square()
        normal = (weight @ products).unflatten(1, (3, 3)) + 1e-6 * torch.eye(3).to(values)
        plane = _solve(normal, (weight * values) @ grid)
    rest = values - plane @ grid.T
    noise = _robust_sd(rest)
    gate = rest.square() / (rest.square() + (_GATE * noise[:, None]).square())
    first, second = ((gate * size).sum(dim=1).clamp(min=1e-12) for size in (rest.abs(), rest.square()))
    log_area = 2 * first.log() - second.log() - torch.tensor(float(values.shape[1])).log()
    return ImageLight(*(part.to(x.dtype) for part in (plane, noise, second.log() - first.log(), log_area)))


def _robust_sd(rest: torch.Tensor) -> torch.Tensor:
    """1.48 times the median absolute deviation from zero, at least half a level of an 8-bit image."""
    return (1.4826 * _median(rest.abs())).clamp(min=0.5 / 255)


def _median(values: torch.Tensor) -> torch.Tensor:
    """
    The median of each row, of an even number the lower one. NumPy's partition is many times faster than PyTorch's
    median on the CPU; recorded as a sorting, which ONNX has, and slower.
    """
    middle = (values.shape[1] - 1) // 2
    if not can_look(values):
        return values.sort(dim=1).values[:, middle]
    if values.device.type == "cpu":
        return torch.from_numpy(np.partition(values.numpy(), middle, axis=1)[:, middle])
    return values.median(dim=1).values


def _solve(normal: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Solutions (B, 3) of symmetric systems (B, 3, 3) by Cramer's rule: ONNX has no solver."""
    a, b, c = normal.unbind(dim=1)
    cofactors = torch.stack([_cross(b, c), _cross(c, a), _cross(a, b)], dim=1)
    return (cofactors @ right[:, :, None])[:, :, 0] / (a * cofactors[:, 0]).sum(dim=1, keepdim=True)


def _cross(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Cross product of vectors (B, 3)."""
    (a0, a1, a2), (b0, b1, b2) = a.unbind(dim=1), b.unbind(dim=1)
    return torch.stack([a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0], dim=1)
