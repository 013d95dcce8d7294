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

"""Who is scanned where in the simulated AD study: the sites of Table S1, unseen sites, and their subjects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_armed.studies.ad_mri.physics import SEQUENCES, draw_bias_coefficients

__all__ = ["TABLE_S1", "Scan", "Site", "Subject", "draw_cohort", "scan_rng"]

TABLE_S1 = [
    # site, subjects, images, images of AD, manufacturer, voxel size in mm
    ("052", 8, 14, 12, "General Electric", (1.2, 1.1, 1.1)),
    ("005", 7, 16, 13, "General Electric", (1.2, 1.0, 1.0)),
    ("126", 12, 26, 20, "General Electric", (1.2, 1.0, 1.0)),
    ("057", 6, 9, 5, "General Electric", (1.2, 1.0, 1.0)),
    ("016", 21, 56, 28, "General Electric", (1.2, 1.0, 1.0)),
    ("002", 24, 80, 9, "Philips", (1.2, 1.1, 1.1)),
    ("073", 16, 56, 5, "Siemens", (1.2, 1.1, 1.1)),
    ("100", 15, 28, 2, "Philips", (1.0, 1.0, 1.0)),
    ("041", 27, 79, 3, "Siemens", (1.2, 1.1, 1.1)),
    ("022", 9, 30, 1, "Siemens", (1.2, 1.1, 1.1)),
    ("941", 29, 66, 1, "Siemens", (1.0, 1.1, 1.1)),
    ("020", 10, 22, 0, "Siemens", (1.0, 1.0, 1.0)),
]
"""Table S1 of the paper. It prints shares of AD in percent; these counts of images give the same shares."""

NUM_UNSEEN_SITES = 51
BIAS_SD = {"Philips": 0.15, "Siemens": 0.15, "General Electric": 0.25}
H_DISTRIBUTION = {"CN": (1.00, 0.09), "AD": (0.80, 0.10)}  # mean, s.d. of the hippocampal volume
LOG_V_DISTRIBUTION = {"CN": (0.0, 0.25), "AD": (0.50, 0.30)}  # mean, s.d. of the log ventricular volume
YEARLY_CHANGE = {"CN": (0.99, 1.02), "AD": (0.96, 1.05)}  # factors of h and v a year


@dataclass(frozen=True)
class Site:
    """A site and its scanner.

    Args:
        name: as in Table S1, or ``"U01"`` ... for an unseen site.
        role: ``"seen"`` or ``"unseen"``.
        manufacturer: key of :data:`monai_armed.studies.ad_mri.physics.SEQUENCES`.
        voxel_size: in mm along x, y and z.
        snr: signal-to-noise ratio in white matter.
        blur: full width at half maximum of the blur in mm.
        bias: the site's half of the bias field's coefficients.
    """

    name: str
    role: str
    manufacturer: str
    voxel_size: tuple[float, float, float]
    snr: float
    blur: float
    bias: NDArray[np.float64]


@dataclass(frozen=True)
class Scan:
    """One image: months after the first one, and the relative volumes ``h`` (hippocampus) and ``v`` (ventricle)."""

    months: int
    h: float
    v: float


@dataclass(frozen=True)
class Subject:
    """A subject with its scans; ``key`` seeds everything that is drawn for it."""

    name: str
    site: Site
    diagnosis: str
    age: int
    sex: str
    scans: tuple[Scan, ...]
    key: tuple[int, ...]


def scan_rng(seed: int, *key: int) -> np.random.Generator:
    """Generator that depends on the seed and the key alone: not on the order of work nor on the number of workers."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def draw_cohort(scale: float, seed: int, unseen_scale: float | None = None) -> list[Subject]:
    """Draw the subjects of the 12 seen and the 51 unseen sites.

    The definition does not say how the subjects and images of the unseen sites vary around 13 and 33: subjects are
    2 + Poisson(11), images subjects + Poisson(20 / 13 of the subjects). Subjects of one diagnosis at a site share its
    images at random, each at least one; ages (75 +- 7 years) and sexes are independent of everything else.

    Args:
        scale: multiplies the numbers of subjects and images of each site, in (0, 1]; every site keeps at least two
            subjects, and the image-wise share of AD as near as whole subjects allow.
        seed: seed of the study.
        unseen_scale: the same for the unseen sites; by default ``scale``.

    Raises:
        ValueError: when a scale is not in (0, 1].
    """
    unseen_scale = scale if unseen_scale is None else unseen_scale
    for value in (scale, unseen_scale):
        if not 0.0 < value <= 1.0:
            raise ValueError(f"scale must be in (0, 1], got {value}.")
    subjects: list[Subject] = []
    for index, (name, people, images, ad_images, manufacturer, voxel_size) in enumerate(TABLE_S1):
        rng = scan_rng(seed, 0, index)
        site = _draw_site(name, "seen", manufacturer, voxel_size, rng)
        subjects += _draw_subjects(site, people, images, ad_images / images, scale, seed, (0, index))
    for index in range(NUM_UNSEEN_SITES):
        rng = scan_rng(seed, 1, index)
        manufacturer = sorted(SEQUENCES)[rng.integers(len(SEQUENCES))]
        voxel_sizes = sorted({row[5] for row in TABLE_S1 if row[4] == manufacturer})
        voxel_size = voxel_sizes[rng.integers(len(voxel_sizes))]
        people = int(2 + rng.poisson(11))
        images = int(people + rng.poisson(people * 20 / 13))
        share = float(rng.beta(2.0, 4.0))
        site = _draw_site(f"U{index + 1:02d}", "unseen", manufacturer, voxel_size, rng)
        subjects += _draw_subjects(site, people, images, share, unseen_scale, seed, (1, index))
    return subjects


def _draw_site(
    name: str, role: str, manufacturer: str, voxel_size: tuple[float, float, float], rng: np.random.Generator
) -> Site:
    snr, blur = float(rng.uniform(15.0, 30.0)), float(rng.uniform(0.8, 1.6))
    return Site(name, role, manufacturer, voxel_size, snr, blur, draw_bias_coefficients(rng))


def _draw_subjects(
    site: Site, people: int, images: int, share: float, scale: float, seed: int, key: tuple[int, int]
) -> list[Subject]:
    people = max(2, round(people * scale))
    images = max(people, round(images * scale))
    ad_images = round(images * share)
    cn_images = images - ad_images
    fewest, most = max(int(ad_images > 0), people - cn_images), min(ad_images, people - int(cn_images > 0))
    ad_people = int(np.clip(round(people * share), fewest, most))
    rng = scan_rng(seed, *key, 0)
    counts = [("AD", count) for count in _share_out(ad_images, ad_people, rng)]
    counts += [("CN", count) for count in _share_out(cn_images, people - ad_people, rng)]
    return [
        _draw_subject(site, diagnosis, count, seed, (*key, 1 + number))
        for number, (diagnosis, count) in enumerate(counts)
    ]


def _share_out(images: int, people: int, rng: np.random.Generator) -> list[int]:
    if people == 0:
        return []
    return [1 + int(extra) for extra in rng.multinomial(images - people, np.full(people, 1.0 / people))]


def _draw_subject(site: Site, diagnosis: str, num_scans: int, seed: int, key: tuple[int, ...]) -> Subject:
    rng = scan_rng(seed, *key, 0)
    h = rng.normal(*H_DISTRIBUTION[diagnosis])
    v = np.exp(rng.normal(*LOG_V_DISTRIBUTION[diagnosis]))
    age = int(np.clip(np.rint(rng.normal(75.0, 7.0)), 55, 95))
    sex = "F" if rng.random() < 0.5 else "M"
    h_year, v_year = YEARLY_CHANGE[diagnosis]
    scans = tuple(Scan(6 * k, float(h * h_year ** (k / 2)), float(v * v_year ** (k / 2))) for k in range(num_scans))
    return Subject(f"sub-{site.name}S{key[-1]:03d}", site, diagnosis, age, sex, scans, key)
