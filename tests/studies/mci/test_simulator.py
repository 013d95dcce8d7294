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

"""The simulated MCI study has the numbers that it promises."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from monai_armed.studies.mci.adnimerge import NUMBERS, conversion_subjects, parse_adnimerge
from monai_armed.studies.mci.simulator import GROUPS, SCALES, simulate_conversion


@pytest.fixture(scope="module")
def study():
    return simulate_conversion(0)


@pytest.fixture(scope="module")
def subjects(study):
    return conversion_subjects(parse_adnimerge(study.table.astype(str), "simulated"))


def test_subjects_sites_and_converters(study, subjects):
    role = study.sites.assign(SITE=study.sites["SITE"].astype(str)).set_index("SITE")["role"]
    by_role = subjects.groupby(subjects["site"].map(role))["label"].agg(["size", "sum"])
    assert by_role.loc["seen"].tolist() == [392, 106] and by_role.loc["unseen"].tolist() == [313, 123]
    sizes = subjects["site"].value_counts()
    assert len(sizes) == 54 and sizes.min() >= 4
    assert set(sizes.index[:20]) == set(role.index[role == "seen"])  # the 20 largest


def test_features_have_the_means_and_loadings(study, subjects):
    severity = study.subjects.set_index("PTID").loc[subjects["subject"], "severity"].to_numpy()
    for name in NUMBERS:
        known = subjects[name].notna()
        loading = GROUPS[name][0] * (SCALES[name][2] if name in SCALES else 1)
        correlation = np.corrcoef(subjects.loc[known, name], severity[known])[0, 1]
        assert correlation == pytest.approx(loading, abs=0.13), name
        if name in SCALES and name != "FAQ_bl":  # the latter is cut at zero
            assert subjects[name].mean() == pytest.approx(SCALES[name][0], abs=0.2 * SCALES[name][1]), name


def test_missing_values(subjects):
    missing = subjects.isna().mean()
    assert missing[["Hippocampus_bl", "FDG_bl", "TAU_bl"]].between(0.06, 0.14).all()
    assert missing[["CDRSB_bl", "AGE", "APOE4"]].max() == 0


def test_the_truth_explains_the_labels(study, subjects):
    truth = study.subjects.set_index("PTID").loc[subjects["subject"]]
    label = subjects["label"].to_numpy()
    assert roc_auc_score(label, truth["best_probability"]) > 0.8 > roc_auc_score(label, truth["severity"]) - 0.05
    for half in (truth["best_probability"] < 0.3, truth["best_probability"] >= 0.3):
        share = label[half.to_numpy()].mean()
        assert share == pytest.approx(truth["best_probability"][half].mean(), abs=0.06)
    assert study.sites["intercept"].std() == pytest.approx(0.8, abs=0.25)
    assert study.sites["CDRSB_bl"].std() == pytest.approx(0.5, abs=0.15) and not study.sites["AGE"].any()
    assert study.slope_sd["MMSE_bl"] == 0.4 and study.slope_sd["APOE4"] == 0


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    paths = [simulate_conversion(7).write(tmp_path / name) for name in ("a", "b")]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    assert digests[0] == digests[1]
    assert simulate_conversion(8).write(tmp_path / "c").read_bytes() != paths[0].read_bytes()
    assert len(pd.read_csv(tmp_path / "a" / "truth_sites.csv")) == 54
    assert json.loads((tmp_path / "a" / "truth_slope_sd.json").read_text())["CDRSB_bl"] == 0.5
