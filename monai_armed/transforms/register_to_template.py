# Copyright (c) the monai_armed authors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and

"""Alignment of a brain with the ICBM152 template, without a change of its voxels."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations, product
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, SpatialResample, Transform
from monai.utils import optional_import
from numpy.typing import NDArray
from scipy.linalg import polar
from scipy.ndimage import binary_erosion, binary_opening, gaussian_filter

__all__ = [
    "HIPPOCAMPUS",
    "PLACES",
    "RegisterToTemplate",
    "RegisterToTemplateD",
    "RegisterToTemplateDict",
    "RegisterToTemplated",
]

HIPPOCAMPUS = (32.0, -6.0, -26.0)
"""The paper's point in the right hippocampus: MNI coordinates in mm."""

PLACES: dict[str, Callable[..., NDArray[np.bool_]]] = {
    "brain": lambda x, y, z: np.isfinite(x),
    "top": lambda x, y, z: z > 50,
    "bottom": lambda x, y, z: z < -40,
    "front": lambda x, y, z: y > 50,
    "back": lambda x, y, z: y < -80,
    "left": lambda x, y, z: x < -50,
    "right": lambda x, y, z: x > 50,
    "temporal poles": lambda x, y, z: (y > 5) & (y < 25) & (z < -18),
}
"""Parts of the template's brain, by MNI coordinates in mm: the whole and what a scan may have lost of it."""

_LPS = np.array([-1.0, -1.0, 1.0])  # ANTs counts millimetres to the left and to the back, NIfTI to the right and front
_KINDS = {"rigid": "Rigid", "affine": "Affine", "syn": "SyN"}  # ANTs' own names
_COARSE, _FINE = 4, 2  # mm: grids on which the turns are compared, and on which ANTs registers


@lru_cache(maxsize=1)
def _template() -> MetaTensor:
    """The brain of the ICBM152 2009a template (1, 197, 233, 189) of the installed nilearn."""
    datasets, found = optional_import("nilearn.datasets")
    if not found:
        raise ImportError('registration needs the template of nilearn: pip install "monai_armed[preprocess]".')
    image = datasets.load_mni152_template(resolution=1)
    return MetaTensor(torch.from_numpy(image.get_fdata(dtype=np.float32))[None], affine=torch.as_tensor(image.affine))


def _turns() -> list[NDArray[np.float64]]:
    """The 24 rotations (3, 3) that map axes onto axes; the first changes nothing."""
    turns = []
    for order, signs in product(permutations(range(3)), product((1.0, -1.0), repeat=3)):
        turn = np.zeros((3, 3))
        turn[range(3), order] = signs
        if np.linalg.det(turn) > 0:
            turns.append(turn)
    return turns


def _on_template_grid(img: MetaTensor, world: NDArray[np.float64], spacing: int) -> NDArray[np.float32]:
    """A volume, moved by ``world`` (4, 4), on the template's grid with ``spacing`` mm; zero where it does not reach."""
    template = _template()
    affine = torch.as_tensor(template.affine, dtype=torch.float64).clone()
    affine[:3, :3] *= spacing
    moved = MetaTensor(img.as_tensor(), affine=torch.from_numpy(world) @ torch.as_tensor(img.affine))
    size = [-(-n // spacing) for n in template.shape[1:]]
    resample = SpatialResample(mode="bilinear", padding_mode="zeros")
    return resample(moved, dst_affine=affine, spatial_size=size)[0].numpy()


def _smooth(img: MetaTensor, sd: float = _COARSE / 2) -> MetaTensor:
    voxel = np.linalg.norm(np.asarray(img.affine)[:3, :3], axis=0)
    return MetaTensor(torch.from_numpy(gaussian_filter(img[0].numpy(), sd / voxel))[None], affine=img.affine)


def _size_and_centre(img: MetaTensor) -> tuple[float, NDArray[np.float64]]:
    """Volume in mm^3 and centre of mass (3,) in mm of the voxels that are not 0."""
    affine = np.asarray(img.affine, dtype=np.float64)
    voxels = torch.nonzero(img.as_tensor()[0])
    centre = affine[:3, :3] @ voxels.double().mean(dim=0).numpy() + affine[:3, 3]
    return len(voxels) * abs(float(np.linalg.det(affine[:3, :3]))), centre


@dataclass(frozen=True)
class _Registration:
    """Similarity, rotation (3, 3) of the subject's space to the template's, the point (3,) in the subject's space, and
    what is missing."""

    similarity: float
    rotation: NDArray[np.float64]
    place: NDArray[np.float64]
    missing: dict[str, float]


def _missing(moved: NDArray[np.float32]) -> dict[str, float]:
    """Part of the template's brain, by place, in which a brain that was brought to its grid is 0."""
    template = _on_template_grid(_template(), np.eye(4), _FINE)
    brain = binary_erosion(template > 0, iterations=2)  # the edge is where any two brains differ
    hole = binary_opening(moved <= 0) & brain  # single voxels are fluid
    affine = np.asarray(_template().affine) @ np.diag([_FINE, _FINE, _FINE, 1.0])
    voxels = np.argwhere(brain)
    x, y, z = (voxels @ affine[:3, :3].T + affine[:3, 3]).T
    inside = hole[tuple(voxels.T)]
    return {name: float(inside[holds(x, y, z)].mean()) for name, holds in PLACES.items()}


class RegisterToTemplate(Transform):
    """Give the brain an affine by which a point of MNI space is where it is in the ICBM152 template.

    As in section 3.3.2 of https://arxiv.org/abs/2202.11783, the scan is registered to the template by ANTs, and a point
    is carried back into the subject's space by the inverse transform. The voxels stay as they are, and so do lengths in
    mm: the affine is only turned, by the rotation in the registration, and shifted, until the carried point has its MNI
    coordinates. :class:`CoronalSlice` at the point's y then cuts through it, orthogonal to the anterior-posterior axis
    of the brain.

    Registration starts from the header's own turn and from the best of the 24 turns that map axes onto axes, with the
    brain brought to the template's volume, and the more similar result is kept. So a scan that is turned, or whose
    header has a wrong direction, is put right, and a head that is pitched is not taken for one. What the image cannot
    tell is left from right: after two axes were swapped in the header, the result may be mirrored.

    The result's ``meta["registration"]`` has ``similarity``, Pearson's correlation with the template within the
    template's brain after the linear part of the registration (a nonlinear one makes even a phantom look similar);
    ``turned``, whether it started from another turn than that in the header; and ``missing``, the part of the
    template's brain, 0 to 1, where the scan has none, by the names of :data:`PLACES`.

    Args:
        registration: ``"rigid"``, ``"affine"`` or ``"syn"`` (nonlinear, as in the paper): decides where the point is.
        point: MNI coordinates in mm; by default the paper's.
        seed: seed of the registration's sampling. It repeats exactly where ITK has one thread
            (``ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=1``).

    Raises:
        ImportError: when antspyx or nilearn is not installed.
        ValueError: when ``registration`` is none of the three.
    """

    def __init__(self, registration: str = "affine", point: Sequence[float] = HIPPOCAMPUS, seed: int = 0) -> None:
        if registration not in _KINDS:
            raise ValueError(f"registration must be one of {', '.join(_KINDS)}, got {registration!r}.")
        self.ants, found = optional_import("ants")
        if not found:
            raise ImportError('registration needs the package antspyx: pip install "monai_armed[preprocess]".')
        self.registration, self.seed = registration, seed
        self.point = np.asarray(point, dtype=np.float64)

    def __call__(self, img: torch.Tensor) -> MetaTensor:
        """Register the brain.

        Args:
            img: brain (1, X, Y, Z) with its affine, 0 outside, as :class:`SkullStrip` gives it.

        Returns:
            the same voxels with the new affine.

        Raises:
            ValueError: when the input is no such volume.
        """
        if not isinstance(img, MetaTensor) or img.ndim != 4 or len(img) != 1 or not img.any():
            raise ValueError(
                f"RegisterToTemplate needs a brain as a MetaTensor (1, X, Y, Z) that is 0 outside and not all 0, got "
                f"{type(img).__name__} {tuple(img.shape)}."
            )
        if img.min() < 0:
            raise ValueError(
                f"RegisterToTemplate needs a brain of values of 0 or more, got {float(img.min()):g}: take the air's "
                "value off, as SkullStrip does."
            )
        found = [(self._register(img, world), turned) for world, turned in self._starts(img)]
        best, turned = max(found, key=lambda candidate: candidate[0].similarity)
        move = np.eye(4)
        move[:3, :3], move[:3, 3] = best.rotation, self.point - best.rotation @ best.place
        result = img.clone()
        result.affine = torch.from_numpy(move) @ torch.as_tensor(img.affine, dtype=torch.float64)
        result.meta["registration"] = {"similarity": best.similarity, "turned": turned, "missing": best.missing}
        return result

    def _starts(self, img: MetaTensor) -> list[tuple[NDArray[np.float64], bool]]:
        """Turn, scaling and shift (4, 4) as the header has it and, where it turns, with the best correlation."""
        template = _on_template_grid(_smooth(_template()), np.eye(4), _COARSE)
        smooth = _smooth(img)
        (size, centre), (template_size, template_centre) = _size_and_centre(img), _size_and_centre(_template())
        found: list[tuple[float, int, NDArray[np.float64]]] = []
        for index, turn in enumerate(_turns()):
            world = np.eye(4)
            world[:3, :3] = turn * (template_size / size) ** (1 / 3)
            world[:3, 3] = template_centre - world[:3, :3] @ centre
            moved = _on_template_grid(smooth, world, _COARSE)
            either = (template > 0.05 * template.max()) | (moved > 0.05 * moved.max())
            found.append((float(np.corrcoef(template[either], moved[either])[0, 1]), index, world))
        _, index, best = max(found, key=lambda candidate: candidate[0])
        return [(found[0][2], False), *([(best, True)] if index else [])]

    def _register(self, img: MetaTensor, start: NDArray[np.float64]) -> _Registration:
        fixed = _on_template_grid(_template(), np.eye(4), _FINE)
        moving = _on_template_grid(img, start, _FINE)
        moving = moving.clip(0, np.quantile(moving[moving > 0], 0.99))
        images = self._to_ants(fixed), self._to_ants(moving)
        with TemporaryDirectory() as folder:
            result = self.ants.registration(
                *images,
                type_of_transform=_KINDS[self.registration],
                outprefix=f"{folder}/",
                random_seed=self.seed + 1,  # ITK takes 0 for the clock
            )
            files = result["fwdtransforms"]
            points = np.concatenate([self.point[None], np.zeros((1, 3)), 50.0 * np.eye(3)])
            place = self._carry(points, files)[0]
            frame = self._carry(points, files[-1:])[1:]  # by the linear transform, which is the last file
            moved = self.ants.apply_transforms(*images, files[-1:]).numpy()
        brain = fixed > 0
        similarity = float(np.corrcoef(moved[brain], fixed[brain])[0, 1])
        linear = (frame[1:] - frame[0]).T / 50.0  # from the template to the brain that was brought near it
        rotation, _ = polar(np.linalg.inv(linear) @ start[:3, :3])
        back = np.linalg.inv(start)
        return _Registration(similarity, rotation, back[:3, :3] @ place + back[:3, 3], _missing(moved))

    def _to_ants(self, volume: NDArray[np.float32]) -> Any:
        origin = _LPS * np.asarray(_template().affine)[:3, 3]
        return self.ants.from_numpy(volume, tuple(origin), (float(_FINE),) * 3, direction=np.diag(_LPS))

    def _carry(self, points: NDArray[np.float64], files: Sequence[str]) -> NDArray[np.float64]:
        """Two or more points (N, 3) of the template's space in the registered image's; ANTs calls that forward."""
        table = pd.DataFrame(points * _LPS, columns=["x", "y", "z"])
        carried = self.ants.apply_transforms_to_points(3, table, list(files))
        return carried[["x", "y", "z"]].to_numpy() * _LPS


class RegisterToTemplated(MapTransform):
    """Dictionary version of :class:`RegisterToTemplate`.

    Args:
        keys: keys of the brains.
        registration: see :class:`RegisterToTemplate`.
        point: see :class:`RegisterToTemplate`.
        seed: see :class:`RegisterToTemplate`.
        allow_missing_keys: do not raise when a key is missing.
    """

    def __init__(
        self,
        keys: KeysCollection,
        registration: str = "affine",
        point: Sequence[float] = HIPPOCAMPUS,
        seed: int = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.register = RegisterToTemplate(registration, point, seed)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Register the brain of each key, see :class:`RegisterToTemplate`."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.register(d[key])
        return d


RegisterToTemplateD = RegisterToTemplateDict = RegisterToTemplated
