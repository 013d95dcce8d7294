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
from methods import Method
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, r2_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from studies import Study

__all__ = ["left_out", "score", "seen", "within_site"]

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
    prediction = left_out(study, method, len(study.names))
    of_new_sites = within_site(study, prediction)[0] if study.is_class else r2_score(study.label, prediction)
    return {"left out": of_new_sites, **seen(study, method, FOLDS, seed)}


def left_out(study: Study, method: Method, folds: int) -> np.ndarray:
    """
    Args:
        study: the people.
        method: one of :py:data:`methods.METHODS`.
        folds: parts that the sites are divided into; as many as there are sites: each by itself.

    Returns:
        fixed effects' prediction for all people (N,) by models that did not have their site.
    """
    prediction, sites = np.zeros(len(study.label)), np.unique(study.site)
    for fold in range(folds):
        seen = np.setdiff1d(sites, sites[fold::folds])
        # sites that are left out come last, so that those of the training are 0 to C - 1
        order = np.where(np.isin(study.site, seen), np.searchsorted(seen, study.site), len(seen))
        test = order == len(seen)
        fitted = method(study.features[~test], study.label[~test], order[~test], study.is_class)
        prediction[test] = fitted.fixed(study.features[test], order[test])
    return prediction


def seen(study: Study, method: Method, folds: int, seed: int) -> dict[str, float]:
    """All of :py:func:`score` but what is left out, in so many folds."""
    size = len(study.label)
    fixed, mixed = np.zeros(size), np.full(size, np.nan)
    given = np.stack([study.label, study.label**2], axis=1)[:, : 1 if study.is_class else 2]
    probes = {name: np.zeros(size, int) for name in ("site probe", "given label", "label alone")}
    probed = np.isin(study.site, np.flatnonzero(np.bincount(study.site) >= LEAST))
    strata = study.site * 2 + study.label if study.is_class else study.site
    for train, test in StratifiedKFold(folds, shuffle=True, random_state=seed).split(strata, strata):
        x = study.features
        fitted = method(x[train], study.label[train], study.site[train], study.is_class)
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
        "within site": within_site(study, fixed)[0],
        **{name: balanced_accuracy_score(study.site[probed], found[probed]) for name, found in probes.items()},
        "chance": 1 / len(np.unique(study.site[probed])),
    }


def within_site(study: Study, prediction: np.ndarray) -> tuple[float, float]:
    """AUROC over the pairs, or correlation over the people, of one site, and its standard error over sites."""
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
    if not found:
        return np.nan, np.nan
    mean, share = np.average(found, weights=weight), np.array(weight) / np.sum(weight)
    return float(mean), float(np.sqrt(np.sum((share * (np.array(found) - mean)) ** 2)))
