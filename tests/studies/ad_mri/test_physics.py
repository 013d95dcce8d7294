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

import numpy as np
import pytest

from monai_armed.studies.ad_mri.physics import (
    InversionRecoverySequence,
    Tissue,
    add_rician_noise,
    bias_field,
    draw_bias_coefficients,
    tissue_signals,
)

EXTENT = ((-90.0, 90.0), (-126.0, 90.0), (-72.0, 108.0))


@pytest.mark.parametrize(
    ("manufacturer", "grey", "csf"),
    [("Philips", 0.675, 0.185), ("Siemens", 0.675, 0.185), ("General Electric", 0.776, 0.324)],
)
def test_tissue_ratios_of_each_maker(manufacturer, grey, csf):
    signals = tissue_signals(manufacturer)
    assert signals["grey"] / signals["white"] == pytest.approx(grey, abs=0.0006)
    assert signals["csf"] / signals["white"] == pytest.approx(csf, abs=0.0006)


def test_signal_without_pulses_is_the_inversion_recovery_formula():
    t1, delay, repetition = 840.0, 900.0, 2300.0
    sequence = InversionRecoverySequence(90.0, 1, 0.0, delay=delay, centre=0, repetition_time=repetition)
    # a 90 degree pulse at the delay leaves nothing: recovery from 0 to the next inversion
    before = 1.0 - np.exp(-(repetition - delay) / t1)
    expected = 1.0 - (1.0 + before) * np.exp(-delay / t1)
    assert sequence.signal(Tissue(t1, 1.0)) == pytest.approx(expected, rel=1e-9)


def test_unknown_maker_is_named():
    with pytest.raises(ValueError, match="Hitachi"):
        tissue_signals("Hitachi")


def test_rician_noise_has_the_second_moment_of_rice():
    signal = np.full(200_000, 3.0, dtype=np.float32)
    noisy = add_rician_noise(signal, 1.5, np.random.default_rng(0))
    assert (noisy >= 0).all()
    assert np.mean(noisy.astype(np.float64) ** 2) == pytest.approx(3.0**2 + 2 * 1.5**2, rel=0.01)


def test_bias_field_has_the_wanted_variance_and_follows_the_coordinates():
    axes = [np.linspace(low, high, 25) for low, high in EXTENT]
    rng = np.random.default_rng(0)
    logs = [np.log(bias_field(0.15 * draw_bias_coefficients(rng), axes, EXTENT)) for _ in range(60)]
    assert np.sqrt(np.mean(np.square(logs))) == pytest.approx(0.15, rel=0.12)
    coefficients = draw_bias_coefficients(rng)
    part = bias_field(coefficients, [axes[0][3:9], axes[1][:1], axes[2]], EXTENT)
    np.testing.assert_allclose(part, bias_field(coefficients, axes, EXTENT)[3:9, :1], rtol=1e-5)
