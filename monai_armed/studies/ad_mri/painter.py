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

"""Images and regions of a simulated subject, from its anatomy, its disease and its site's scanner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from monai_armed.studies.ad_mri.anatomy import ROI_LABELS, SubjectWarp, disease_model, load_template, sample_world
from monai_armed.studies.ad_mri.cohort import BIAS_SD, Scan, Site
from monai_armed.studies.ad_mri.physics import add_rician_noise, bias_field, draw_bias_coefficients, tissue_signals

__all__ = ["SLICE_Y", "SPACING", "Axes", "ScanPainter"]

SLICE_Y = -6.0
"""MNI y coordinate in mm of the coronal slice through hippocampi and amygdalae."""

_FIELD_OF_VIEW = ((-90.0, 90.0), (-126.0, 90.0), (-72.0, 108.0))  # mm, along x, y and z
_SLAB = (SLICE_Y - 12.0, SLICE_Y + 12.0)
SPACING = 2.0  # mm
_GAIN = 20000.0  # brings white matter to about 700 units of the stored 16-bit integers

Axes = Sequence[NDArray[np.float64]]


class ScanPainter:
    """Images and regions of one subject; the warp's points are computed once for all scans."""

    def __init__(self, warp: SubjectWarp, full_volume: bool) -> None:
        bounds = list(_FIELD_OF_VIEW)
        if not full_volume:
            bounds[1] = _SLAB
        self.axes = [np.arange(low, high + 1e-6, SPACING) for low, high in bounds]
        self.mask_axes = self.axes if full_volume else [self.axes[0], np.array([SLICE_Y]), self.axes[2]]
        self._warp = warp
        self._points: dict[str, Tensor] = {}
        self._fine_axes = self._brain_axes(bounds)

    def _brain_axes(self, bounds: Sequence[tuple[float, float]], margin: float = 5.0) -> Axes:
        """1 mm axes of the part of the field of view that holds brain."""
        coarse = [np.arange(low, high + 1e-6, 4.0) for low, high in bounds]
        brain = self._sample("coarse", coarse, Scan(0, 1.0, 1.0), slice(0, 3)).sum(axis=0) > 0
        places = np.nonzero(brain)
        return [
            np.arange(axis[place.min()] - margin, axis[place.max()] + margin + 1e-6)
            for axis, place in zip(coarse, places, strict=True)
        ]

    def _sample(self, name: str, axes: Axes, scan: Scan, channels: slice) -> NDArray[np.float64]:
        if name not in self._points:
            self._points[name] = self._warp.to_template(axes)
        template = load_template()
        points = disease_model().displace(self._points[name], scan.h, scan.v)
        return sample_world(template.maps[channels], template.origin, 1.0, points).numpy()

    def image(self, scan: Scan, site: Site, rng: np.random.Generator) -> NDArray[np.float64]:
        """Skull-stripped magnitude image on the output grid: blur, scanner's voxels, noise, output grid."""
        snr, blur = site.snr * (1.0 + rng.uniform(-0.1, 0.1)), site.blur * (1.0 + rng.uniform(-0.1, 0.1))
        bias = BIAS_SD[site.manufacturer] * np.sqrt(0.5) * (site.bias + draw_bias_coefficients(rng))
        signals = tissue_signals(site.manufacturer)
        tissues = self._sample("fine", self._fine_axes, scan, slice(0, 3))
        signal = np.tensordot([signals[t] for t in ("white", "grey", "csf")], tissues, axes=1)
        signal = gaussian_filter(signal, blur / 2.3548, truncate=3.0)
        signal *= bias_field(bias, self._fine_axes, _FIELD_OF_VIEW)
        scanner = [np.arange(a[0], a[-1], size) for a, size in zip(self._fine_axes, site.voxel_size, strict=True)]
        magnitude = add_rician_noise(_interpolate(signal, self._fine_axes, scanner), signals["white"] / snr, rng)
        brain = _interpolate(tissues.sum(axis=0), self._fine_axes, self.axes) > 0.5
        return _GAIN * brain * _interpolate(magnitude, scanner, self.axes)

    def regions(self, scan: Scan) -> tuple[NDArray[np.uint8], dict[str, float]]:
        """Label map, volumes in mm^3 and areas in mm^2 in the slice of the regions after disease and warp."""
        volume_axes = [np.arange(low, high, 2.0) for low, high in ((-62.0, 62.0), (-86.0, 50.0), (-58.0, 52.0))]
        volumes = self._sample("volume", volume_axes, scan, slice(3, 5)).sum(axis=(1, 2, 3)) * 8.0
        slice_axes = [np.arange(*_FIELD_OF_VIEW[0]), np.array([SLICE_Y]), np.arange(*_FIELD_OF_VIEW[2])]
        areas = self._sample("slice", slice_axes, scan, slice(3, 5)).sum(axis=(1, 2, 3))
        masks = self._sample("mask", self.mask_axes, scan, slice(3, 5)) > 0.5
        measures = {f"{name}_volume": round(float(x), 1) for name, x in zip(ROI_LABELS, volumes, strict=True)}
        measures |= {f"{name}_area": round(float(x), 1) for name, x in zip(ROI_LABELS, areas, strict=True)}
        return np.where(masks[0], 1, 2 * masks[1]).astype(np.uint8), measures


def _interpolate(volume: NDArray[Any], source: Axes, target: Axes) -> NDArray[np.float64]:
    """Linear interpolation from one axis-aligned grid to another, zero outside the first."""
    for dim, (old, new) in enumerate(zip(source, target, strict=True)):
        weights = np.maximum(0.0, 1.0 - np.abs(np.subtract.outer(new, old)) / (old[1] - old[0]))
        volume = np.moveaxis(np.tensordot(weights, volume, axes=(1, dim)), 0, dim)
    return volume
