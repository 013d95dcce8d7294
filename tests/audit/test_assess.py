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
"""The verdict: a planted shortcut is found, none is found where there is none, at the rate that is said."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from monai_armed.audit.assess import _erasing, assess
from monai_armed.audit.data_list import Samples
from monai_armed.audit.probes import halves, probe_layers
from monai_armed.audit.readings import Readings


def simulated(seed: int, shift: float = 0.0, images: int = 1, n: int = 160) -> tuple[Samples, Readings]:
    """Subjects of three sites that differ in their share of class 1; one feature tells it, one, shifted, the site."""
    rng = np.random.default_rng(seed)
    site = rng.integers(0, 3, n)
    label = (rng.random(n) < 0.3 + 0.2 * site).astype(int)
    features = rng.normal(size=(n, 6))
    features[:, 0] += 1.5 * label
    features[:, 1] += shift * site
    of = np.repeat(np.arange(n), images * (1 + site) if images > 1 else 1)  # of later sites more images a subject
    features = features[of] + 0.3 * rng.normal(size=(len(of), 6))
    names = np.array([f"site {k}" for k in site])[of]
    samples = Samples(label[of], names, of.astype(str), pd.DataFrame(index=range(len(of))))
    return samples, Readings(features[:, 0] + 0.5 * features[:, 1], {"hidden": features})


def test_a_planted_shortcut_is_found():
    audit = assess(*simulated(0, shift=2.0))
    assert audit.reads_site and audit.verdict[0].startswith("The network reads the site: its predictions tell")
    assert "1 of its 1 layers" in audit.verdict[0]
    assert (audit.tables["probes"]["p_adjusted"] < 0.05).all()


def test_sites_that_differ_in_the_class_alone_are_no_shortcut():
    audit = assess(*simulated(1))
    assert not audit.reads_site and audit.verdict[0].startswith("Nothing shows")
    worst = audit.tables["sites"].iloc[1:].nsmallest(1, "auroc").iloc[0]
    assert worst["site"] in audit.verdict[1] and worst["low_worst"] < worst["low"]


@pytest.mark.slow
@pytest.mark.parametrize("images", [1, 2])
def test_false_alarms_are_as_many_as_is_said(images):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that a small site lacks
        alarms = sum(assess(*simulated(seed, images=images)).reads_site for seed in range(100, 200))
    assert alarms <= binom.ppf(0.999, 100, 0.05)


def test_a_subject_is_in_one_half():
    samples, _ = simulated(2, images=3)
    first, second = halves(samples.label, samples.site, samples.subject)
    assert not set(samples.subject[first]) & set(samples.subject[second])
    assert sorted([*first, *second]) == list(range(len(samples)))


def test_sites_of_a_single_image_are_halved_without_a_word():
    label, site = np.arange(12) % 2, np.array([f"s{k}" for k in range(12)])
    for sites in (site, np.where(np.arange(12) < 11, "large", "small")):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            first, second = halves(label, sites, np.arange(12).astype(str))
        assert sorted([*first, *second]) == list(range(12)) and len(first) == len(second) == 6


def test_a_class_of_one_site_is_not_probed():
    samples, readings = simulated(3)
    kept = (samples.label == 0) | (samples.site == "site 0")
    layers = {"hidden": readings.layers["hidden"][kept]}
    table = probe_layers(layers, samples.label[kept], samples.site[kept], samples.subject[kept])
    assert table["class"].unique().tolist() == ["0"]


@pytest.mark.parametrize(
    ("leaks", "within", "layer"),
    [
        ([0.51, 0.52], [0.60, 0.75], "late"),  # both leave no more than chance makes: what keeps more
        ([0.51, 0.70], [0.60, 0.75], "early"),
        ([0.80, 0.70], [0.60, 0.75], "late"),
        ([float("nan"), 0.70], [0.60, 0.75], "late"),
    ],
)
def test_the_layer_to_erase_is_the_one_that_costs_least_among_those_that_suffice(leaks, within, layer):
    table = pd.DataFrame({"layer": ["early", "late"], "erased": 1, "leak": 0.9, "leak_erased": leaks})
    table = table.assign(chance_high=0.55, auroc=0.8, within_site=0.8, within_site_erased=within)
    (said,) = _erasing({"erased": table})
    assert said.startswith(f"Erasing {layer} ")
    assert not _erasing({"erased": table.assign(leak=float("nan"))})
