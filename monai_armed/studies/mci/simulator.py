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

"""A simulated study of MCI conversion in the form of ADNIMERGE.csv, with its truth."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from monai_armed.studies.mci.adnimerge import CATEGORIES, COGNITION, CSF, DEMOGRAPHICS, NUMBERS, PET, VOLUMES

__all__ = ["SimulatedConversion", "simulate_conversion"]

NUM_SEEN, SEEN_SUBJECTS, SEEN_CONVERTERS = 20, 392, 106
NUM_UNSEEN, UNSEEN_SUBJECTS, UNSEEN_CONVERTERS = 34, 313, 123
SMALLEST_SITE, LARGEST_UNSEEN = 4, 13  # the 20 seen sites are the largest
SEVERITY_SLOPE, INTERCEPT_SD = 1.6, 0.8
MISSING_SHARE = 0.1

# loading on severity, s.d. of the site slope
GROUPS = {
    **dict.fromkeys(COGNITION, (0.7, 0.2)),
    "CDRSB_bl": (0.7, 0.5),
    "MMSE_bl": (0.7, 0.4),
    **dict.fromkeys(VOLUMES, (0.5, 0.1)),
    **dict.fromkeys(PET, (0.5, 0.05)),
    **dict.fromkeys(CSF, (0.4, 0.05)),
    "APOE4": (0.3, 0.0),
    "AGE": (0.2, 0.0),
    "PTEDUCAT": (0.0, 0.0),
}
# mean, s.d., sign with severity, step, lowest and highest value: about those of ADNI's MCI subjects at baseline
SCALES = {
    "AGE": (73.0, 7.4, 1, 0.1, 55.0, 91.0),
    "PTEDUCAT": (16.0, 2.8, 1, 1, 6, 20),
    "CDRSB_bl": (1.5, 0.9, 1, 0.5, 0.5, 5.5),
    "ADAS11_bl": (10.3, 4.5, 1, 1 / 3, 0, 30),
    "ADAS13_bl": (16.6, 6.7, 1, 1 / 3, 0, 45),
    "ADASQ4_bl": (5.2, 2.5, 1, 1, 0, 10),
    "MMSE_bl": (27.6, 1.8, -1, 1, 23, 30),
    "RAVLT_immediate_bl": (35.0, 10.8, -1, 1, 5, 75),
    "RAVLT_learning_bl": (4.2, 2.5, -1, 1, -3, 12),
    "RAVLT_forgetting_bl": (4.7, 2.4, 1, 1, -4, 13),
    "RAVLT_perc_forgetting_bl": (58.0, 31.0, 1, 0.0001, -100, 100),
    "TRABSCOR_bl": (114.0, 62.0, 1, 1, 20, 300),
    "FAQ_bl": (3.1, 4.0, 1, 1, 0, 30),
    "mPACCdigit_bl": (-5.9, 3.7, -1, 0.0001, -25, 8),
    "mPACCtrailsB_bl": (-5.6, 3.6, -1, 0.0001, -25, 8),
    "Ventricles_bl": (40000.0, 22000.0, 1, 1, 5000, 160000),
    "Hippocampus_bl": (6800.0, 1100.0, -1, 1, 2500, 11000),
    "WholeBrain_bl": (1020000.0, 105000.0, -1, 1, 650000, 1500000),
    "Entorhinal_bl": (3500.0, 730.0, -1, 1, 1000, 6700),
    "Fusiform_bl": (17400.0, 2600.0, -1, 1, 9000, 30000),
    "MidTemp_bl": (19600.0, 2900.0, -1, 1, 9000, 33000),
    "ICV_bl": (1530000.0, 165000.0, -1, 1, 1000000, 2200000),
    "FDG_bl": (1.24, 0.13, -1, 0.00001, 0.6, 1.8),
    "ABETA_bl": (950.0, 400.0, -1, 0.1, 200, 1700),
    "TAU_bl": (285.0, 130.0, 1, 0.1, 80, 1300),
    "PTAU_bl": (28.0, 14.0, 1, 0.01, 8, 120),
}
APOE4_SHARES = (0.49, 0.39, 0.12)
SHARES = {
    "PTGENDER": {"Male": 0.6, "Female": 0.4},
    "PTETHCAT": {"Not Hisp/Latino": 0.965, "Hisp/Latino": 0.03, "Unknown": 0.005},
    "PTRACCAT": {"White": 0.92, "Black": 0.04, "Asian": 0.02, "More than one": 0.015, "Unknown": 0.005},
    "PTMARRY": {"Married": 0.77, "Widowed": 0.11, "Divorced": 0.095, "Never married": 0.02, "Unknown": 0.005},
}


@dataclass(frozen=True)
class SimulatedConversion:
    """
    A drawn study and the truth behind it.

    Args:
        table: in the form of ADNIMERGE.csv, three visits a subject.
        sites: a row a site: ``SITE``, ``role`` (seen, unseen), ``intercept``, and the slope of each numeric feature.
        subjects: a row a subject: ``PTID``, ``severity``, ``logit`` (true log odds of conversion), and
            ``best_probability``, that of conversion given the complete features and the site's true effects.
        slope_sd: true s.d. over sites of each numeric feature's slope. (Those of the categories are zero.)
    """

    table: pd.DataFrame
    sites: pd.DataFrame
    subjects: pd.DataFrame
    slope_sd: dict[str, float]

    def write(self, folder: str | Path) -> Path:
        """Write ``ADNIMERGE.csv`` and, beside it, ``truth_sites.csv``, ``truth_subjects.csv`` and
        ``truth_slope_sd.json``; returns the table's path."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.sites.to_csv(folder / "truth_sites.csv", index=False)
        self.subjects.to_csv(folder / "truth_subjects.csv", index=False)
        (folder / "truth_slope_sd.json").write_text(json.dumps(self.slope_sd, indent=4))
        self.table.to_csv(folder / "ADNIMERGE.csv", index=False)
        return folder / "ADNIMERGE.csv"


def simulate_conversion(seed: int = 0) -> SimulatedConversion:
    """
    Draw a study like that of Supplement 3.3.1 of https://arxiv.org/abs/2202.11783: 20 sites with 392 subjects (106 of
    them converters) and 34 smaller ones with 313 (123).

    A latent severity s ~ N(0, 1) drives the features, x_p = loading_p s + noise, of variance 1, before they are given
    ADNI's units, steps and ranges. The log odds of conversion within 24 months are
    a + 1.6 s + u_j0 + sum_p u_jp x_p, with site intercepts of s.d. 0.8 and site slopes of s.d. 0.5 for CDR-SB, 0.4 for
    MMSE, 0.2 for other cognitive scores, 0.1 for volumes, 0.05 for PET and CSF and 0 for demographics and ApoE4. One a
    for the seen and one for the unseen sites make the numbers of converters exact. In a tenth of the subjects all
    volumes are missing, in a tenth PET, in a tenth all of CSF. (The intracranial volume loads on severity like the
    other volumes, for simplicity.) NumPy's frozen legacy stream is drawn from.

    Args:
        seed: seed of the draw.
    """
    rng = np.random.RandomState(seed)
    site = np.repeat(np.arange(NUM_SEEN + NUM_UNSEEN), _site_sizes(rng))
    severity, x = _features(rng, len(site))
    slope_sd = np.array([GROUPS[name][1] for name in NUMBERS])
    intercept = rng.normal(0, INTERCEPT_SD, NUM_SEEN + NUM_UNSEEN)
    slopes = rng.normal(0, 1, (NUM_SEEN + NUM_UNSEEN, len(NUMBERS))) * slope_sd
    site_part = intercept[site] + (slopes[site] * x).sum(axis=1)
    logit = SEVERITY_SLOPE * severity + site_part
    noise = rng.logistic(size=len(site))
    constant = np.empty(len(site))
    for part, converters in ((site < NUM_SEEN, SEEN_CONVERTERS), (site >= NUM_SEEN, UNSEEN_CONVERTERS)):
        ordered = np.sort((logit + noise)[part])[::-1]
        constant[part] = -(ordered[converters - 1] + ordered[converters]) / 2
    converted = logit + constant + noise > 0

    names = rng.permutation(np.arange(2, 142))[: NUM_SEEN + NUM_UNSEEN]  # site numbers as ADNI has them
    table = _table(rng, x, names[site], converted)
    sites = pd.DataFrame({"SITE": names, "role": ["seen"] * NUM_SEEN + ["unseen"] * NUM_UNSEEN, "intercept": intercept})
    subjects = pd.DataFrame({"PTID": table["PTID"].iloc[: len(site)], "severity": severity, "logit": logit + constant})
    subjects["best_probability"] = _best_probability(x, constant + site_part)
    visits = table.sort_values(["RID", "VISCODE"], kind="stable", ignore_index=True)
    slopes_by_site = pd.DataFrame(slopes, columns=list(NUMBERS))
    return SimulatedConversion(visits, sites.join(slopes_by_site), subjects, dict(zip(NUMBERS, slope_sd.tolist())))


def _site_sizes(rng: np.random.RandomState) -> np.ndarray:
    """Subjects of each site: first the seen ones, all larger than the unseen ones."""
    smallest_seen = LARGEST_UNSEEN + 1
    spare = SEEN_SUBJECTS - NUM_SEEN * smallest_seen
    seen = smallest_seen + rng.multinomial(spare, rng.dirichlet(np.ones(NUM_SEEN)))
    unseen, shares = np.full(NUM_UNSEEN, SMALLEST_SITE), rng.dirichlet(np.ones(NUM_UNSEEN))
    while unseen.sum() < UNSEEN_SUBJECTS:
        chosen = rng.choice(NUM_UNSEEN, p=shares)
        unseen[chosen] += unseen[chosen] < LARGEST_UNSEEN
    return np.concatenate([seen, unseen])


def _features(rng: np.random.RandomState, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Severity (N,) and the numeric features (N, P), of mean 0 and variance 1, signed as in medicine."""
    severity = rng.normal(size=size)
    loading = np.array([GROUPS[name][0] for name in NUMBERS])
    x = loading * severity[:, None] + np.sqrt(1 - loading**2) * rng.normal(size=(size, len(NUMBERS)))
    sign = np.array([SCALES[name][2] if name in SCALES else 1 for name in NUMBERS])
    return severity, x * sign


def _best_probability(x: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """P(conversion | features, true effects): severity, integrated over its normal posterior given the features."""
    sign = np.array([SCALES[name][2] if name in SCALES else 1 for name in NUMBERS])
    loading = np.array([GROUPS[name][0] for name in NUMBERS])
    weight = loading / (1 - loading**2)
    variance = 1 / (1 + (loading * weight).sum())
    mean = variance * (x * sign) @ weight
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    severity = mean[:, None] + np.sqrt(variance) * nodes
    return expit(SEVERITY_SLOPE * severity + rest[:, None]) @ weights / weights.sum()


def _table(rng: np.random.RandomState, x: np.ndarray, site: np.ndarray, converted: np.ndarray) -> pd.DataFrame:
    """Three visits (bl, m12, m24) of each subject, with ADNIMERGE's columns; the baseline visits come first."""
    size = len(site)
    rid = rng.permutation(size) + 2
    baseline = pd.DataFrame({"RID": rid, "PTID": [f"{s:03d}_S_{r:04d}" for s, r in zip(site, rid)], "SITE": site})
    baseline["DX_bl"] = np.where(rng.uniform(size=size) < 0.6, "LMCI", "EMCI")
    for p, name in enumerate(NUMBERS):
        baseline[name] = _apoe4(x[:, p]) if name == "APOE4" else _in_units(name, x[:, p])
    for group in (VOLUMES, PET, CSF):
        baseline.loc[rng.uniform(size=size) < MISSING_SHARE, list(group)] = ""
    for name in CATEGORIES:
        shares = SHARES[name]
        counts = np.rint(np.array(list(shares.values())) * size).astype(int)
        counts[0] += size - counts.sum()
        baseline[name] = rng.permutation(np.repeat(list(shares), counts))
    columns = ["RID", "PTID", "SITE", "VISCODE", "DX_bl", *DEMOGRAPHICS, *CATEGORIES]
    columns += [name for name in NUMBERS if name not in DEMOGRAPHICS] + ["DX"]
    early = converted & (rng.uniform(size=size) < 0.5)
    diagnoses = {"bl": np.full(size, "MCI"), "m12": np.where(early, "Dementia", "MCI")}
    diagnoses["m24"] = np.where(converted, "Dementia", "MCI")
    visits = [baseline.assign(VISCODE=code, DX=diagnosis) for code, diagnosis in diagnoses.items()]
    return pd.concat(visits, ignore_index=True)[columns]


def _in_units(name: str, x: np.ndarray) -> list[str]:
    """Values as ADNIMERGE writes them; CSF beyond the laboratory's range as its bound with < or >."""
    mean, sd, _, step, low, high = SCALES[name]
    values = np.clip(np.rint((mean + sd * x) / step) * step, low, high)
    text = [f"{value:.10g}" for value in np.round(values, 5)]
    if name not in CSF:
        return text
    bounds = {low: "<", high: ">"}
    return [bounds.get(value, "") + t for value, t in zip(values, text)]


def _apoe4(x: np.ndarray) -> list[str]:
    """Number of alleles 0, 1 or 2 by the rank of a normal variable, in the published shares."""
    edges = np.quantile(x, np.cumsum(APOE4_SHARES)[:2])
    return np.searchsorted(edges, x).astype(str).tolist()
