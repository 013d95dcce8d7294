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

"""Signal, noise and bias field of a T1-weighted inversion-recovery gradient-echo (MPRAGE, IR-SPGR) scan at 3 T."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.polynomial.legendre import legval
from numpy.typing import NDArray

__all__ = [
    "SEQUENCES",
    "TISSUES",
    "InversionRecoverySequence",
    "Tissue",
    "add_rician_noise",
    "bias_field",
    "draw_bias_coefficients",
    "tissue_signals",
]

BIAS_ORDERS = [orders for orders in product(range(4), repeat=3) if 1 <= sum(orders) <= 3]


@dataclass(frozen=True)
class Tissue:
    """Relaxation time ``t1`` in ms and relative proton density of a tissue at 3 T."""

    t1: float
    proton_density: float


@dataclass(frozen=True)
class InversionRecoverySequence:
    """An inversion-recovery gradient-echo sequence.

    Args:
        flip_angle: excitation flip angle in degrees.
        num_pulses: excitation pulses after each inversion.
        pulse_interval: time between two excitation pulses in ms.
        delay: time from the inversion to the first excitation pulse in ms.
        centre: number of pulses played before the central line of k-space.
        repetition_time: time from one inversion to the next in ms.
    """

    flip_angle: float
    num_pulses: int
    pulse_interval: float
    delay: float
    centre: int
    repetition_time: float = 2300.0

    def signal(self, tissue: Tissue) -> float:
        """Signal at the central line in the steady state, with the sign of the longitudinal magnetisation.

        The magnetisation after one repetition is an affine function of the one before, ``m -> gain * m + offset``:
        two runs give both, and the fixed point is the steady state.
        """
        offset, _ = self._repetition(0.0, tissue.t1)
        gain = self._repetition(1.0, tissue.t1)[0] - offset
        _, central = self._repetition(offset / (1.0 - gain), tissue.t1)
        return tissue.proton_density * math.sin(math.radians(self.flip_angle)) * central

    def _repetition(self, m: float, t1: float) -> tuple[float, float]:
        def relax(m: float, duration: float) -> float:
            return 1.0 + (m - 1.0) * math.exp(-duration / t1)

        m = relax(-m, self.delay)
        central = m
        for pulse in range(self.num_pulses):
            if pulse == self.centre:
                central = m
            m = relax(m * math.cos(math.radians(self.flip_angle)), self.pulse_interval)
        rest = self.repetition_time - self.delay - self.num_pulses * self.pulse_interval
        return relax(m, rest), central


TISSUES = {"white": Tissue(840.0, 0.70), "grey": Tissue(1350.0, 0.82), "csf": Tissue(4000.0, 1.00)}

# TI = 900 ms is at the central line for Philips and Siemens; GE's TI = 400 ms is the delay to the first pulse.
_MPRAGE = InversionRecoverySequence(9.0, 176, 7.0, delay=900.0 - 88 * 7.0, centre=88)
_IR_SPGR = InversionRecoverySequence(11.0, 196, 7.3, delay=400.0, centre=98)
SEQUENCES = {"Philips": _MPRAGE, "Siemens": _MPRAGE, "General Electric": _IR_SPGR}


def tissue_signals(manufacturer: str) -> dict[str, float]:
    """Signed signals of white matter, grey matter and CSF (keys ``"white"``, ``"grey"``, ``"csf"``) for a maker.

    The grey/white ratio is 0.675 for Philips and Siemens and 0.776 for General Electric, CSF/white 0.185 and 0.324.
    These are the ratios that the study's definition states. It also lists T2* and an echo time of 3 ms, but with that
    decay the ratios would be 0.682, 0.783, 0.194 and 0.340; the stated ratios were kept and the decay, which is the
    same for every maker and so carries no site effect, is left out.

    Args:
        manufacturer: a key of ``SEQUENCES``.

    Raises:
        ValueError: when the manufacturer is unknown.
    """
    if manufacturer not in SEQUENCES:
        raise ValueError(f"manufacturer must be one of {sorted(SEQUENCES)}, got {manufacturer!r}.")
    return {name: SEQUENCES[manufacturer].signal(tissue) for name, tissue in TISSUES.items()}


def add_rician_noise(signal: NDArray[np.float64], sigma: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Modulus of a signed signal with Gaussian noise of s.d. ``sigma`` in its real and its imaginary channel."""
    real = signal + sigma * rng.standard_normal(signal.shape)
    imaginary = sigma * rng.standard_normal(signal.shape)
    return np.hypot(real, imaginary)


def draw_bias_coefficients(rng: np.random.Generator) -> NDArray[np.float64]:
    """Coefficients (19,) of a random third-order bias field whose expected variance over the field of view is 1."""
    return rng.normal(scale=1.0 / math.sqrt(len(BIAS_ORDERS)), size=len(BIAS_ORDERS))


def bias_field(
    coefficients: NDArray[np.float64], axes: Sequence[NDArray[np.float64]], extent: Sequence[tuple[float, float]]
) -> NDArray[np.float64]:
    """Multiplicative bias field: the exponential of a third-order polynomial.

    The basis is Legendre polynomials orthonormal over ``extent``, so the variance of the polynomial is the sum of the
    squared coefficients. The exponential keeps the field positive; at an s.d. of 0.25 it changes the s.d. by 2 %.

    Args:
        coefficients: (19,), as :func:`draw_bias_coefficients` gives them, times the wanted s.d.
        axes: world coordinates in mm of the voxel centres along x, y and z.
        extent: the lowest and highest coordinate in mm of the field of view along x, y and z.

    Returns:
        array of the shape that the axes span.
    """
    bases = []
    for axis, (low, high) in zip(axes, extent, strict=True):
        scaled = 2.0 * (np.asarray(axis) - low) / (high - low) - 1.0
        bases.append([math.sqrt(2 * order + 1) * legval(scaled, np.eye(4)[order]) for order in range(4)])
    cube = np.zeros((4, 4, 4))
    for orders, coefficient in zip(BIAS_ORDERS, coefficients, strict=True):
        cube[orders] = coefficient
    polynomial = np.einsum("abc,ax,by,cz->xyz", cube, *map(np.asarray, bases), optimize=True)
    return np.exp(polynomial)
