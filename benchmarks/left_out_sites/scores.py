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

"""What a method is judged by: each site left out in turn, people of seen sites, and what still tells the site."""

from __future__ import annotations

import numpy as np
from methods import Fitted, Method, prepare
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, r2_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from studies import Study

__all__ = ["score"]

FOLDS = 5
LEAST = 10  # people that a site must have to be probed for


def score(study: Study, method: Method, seed: int = 0) -> dict[str, float]:
    """
    Args:
        study: the people.
        method: one of :py:data:`methods.METHODS`.
        seed: of the cross-validation.

    Returns:
        ``left out``: R2, or AUROC over pairs of people of one site, of the fixed effects, each site left out in turn;
        ``seen fixed`` and ``seen mixed``: R2 or AUROC in cross-validation, stratified by site; ``within site``: the
        correlation with the label, or AUROC, among people of one site, of the fixed effects; ``site probe``: balanced
        accuracy of a linear model that names the site of people whom nothing was fitted to, from what the last layer
        reads; ``given label``: the same, from that and the label (a number also squared); ``label alone`` and
        ``chance``: what these are to be compared with.
    """
    return {**_left_out(study, method), **_seen(study, method, seed)}


def _fit(study: Study, method: Method, train: np.ndarray) -> tuple[Fitted, np.ndarray]:
    """Fitted to training people, and the features of all; sites that they lack are given another index by nobody."""
    x = prepare(study.features[train]).transform(study.features)
    return method(x[train], study.label[train], study.site[train], study.is_class), x


def _left_out(study: Study, method: Method) -> dict[str, float]:
    prediction = np.zeros(len(study.label))
    for left_out in range(len(study.names)):
        # the left-out site comes last, so that those of the training are 0 to C - 1
        order = np.where(study.site == left_out, len(study.names) - 1, study.site - (study.site > left_out))
        part = study._replace(site=order)
        test = study.site == left_out
        fitted, x = _fit(part, method, np.flatnonzero(~test))
        prediction[test] = fitted.fixed(x[test], order[test])
    return {"left out": _within(study, prediction) if study.is_class else r2_score(study.label, prediction)}


def _seen(study: Study, method: Method, seed: int) -> dict[str, float]:
    size = len(study.label)
    fixed, mixed = np.zeros(size), np.full(size, np.nan)
    given = np.stack([study.label, study.label**2], axis=1)[:, : 1 if study.is_class else 2]
    probes = {name: np.zeros(size, int) for name in ("site probe", "given label", "label alone")}
    probed = np.isin(study.site, np.flatnonzero(np.bincount(study.site) >= LEAST))
    strata = study.site * 2 + study.label if study.is_class else study.site
    for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(strata, strata):
        fitted, x = _fit(study, method, train)
        fixed[test] = fitted.fixed(x[test], study.site[test])
        if fitted.mixed is not None:
            mixed[test] = fitted.mixed(x[test], study.site[test])
        read = fitted.features(x, study.site)
        learn = train[probed[train]]
        columns = {"site probe": read, "given label": np.c_[read, given], "label alone": given}
        for name, of_all in columns.items():
            probe = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=300))
            probes[name][test] = probe.fit(of_all[learn], study.site[learn]).predict(of_all[test])
    measure = roc_auc_score if study.is_class else r2_score
    return {
        "seen fixed": measure(study.label, fixed),
        "seen mixed": np.nan if np.isnan(mixed).any() else measure(study.label, mixed),
        "within site": _within(study, fixed),
        **{name: balanced_accuracy_score(study.site[probed], found[probed]) for name, found in probes.items()},
        "chance": 1 / len(np.unique(study.site[probed])),
    }


def _within(study: Study, prediction: np.ndarray) -> float:
    """AUROC over the pairs, or correlation over the people, of one site."""
    found, weight = [], []
    for site in range(len(study.names)):
        own = study.site == site
        label = study.label[own]
        if study.is_class and len(np.unique(label)) > 1:
            found.append(roc_auc_score(label, prediction[own]))
            weight.append(float((label == 1).sum() * (label == 0).sum()))
        elif not study.is_class and own.sum() >= LEAST and prediction[own].std() > 0:
            found.append(np.corrcoef(label, prediction[own])[0, 1])
            weight.append(float(own.sum()))
    return float(np.average(found, weights=weight)) if found else np.nan
