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
"""Whether fresh classifiers name the site from the features of a network's layers, within each class."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control
from sklearn.model_selection import StratifiedGroupKFold

from ..data.folds import shuffled_groups
from ..metrics.audit import LayerFeatures, audit_features
from .leaks import one_a_subject

__all__ = ["halves", "probe_layers"]

COLUMNS = ["layer", "class", "probe", "samples", "clusters", "balanced_accuracy", "chance", "chance_high", "p"]


def halves(label: np.ndarray, site: np.ndarray, subject: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """
    Indices of two halves of the samples, with all of a subject in one of them, alike in classes and sites.

    Args:
        label: class (N,).
        site: name (N,).
        subject: name (N,).
        seed: seed of the split.
    """
    groups = shuffled_groups(subject, seed)
    strata = np.array([f"{a}/{b}" for a, b in zip(label, site)])
    _, stratum, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    strata[sizes[stratum] < 2] = "rare"  # cannot be in both halves
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of one that is alone in this
        return next(iter(StratifiedGroupKFold(2).split(np.zeros(len(label)), strata, groups)))


def probe_layers(
    layers: Mapping[str, np.ndarray], label: np.ndarray, site: np.ndarray, subject: np.ndarray, seed: int = 0
) -> pd.DataFrame:
    """
    Fresh classifiers (:py:func:`~monai_armed.metrics.audit.audit_features`) learn to name the site from one half of the
    subjects and are tested on the other, with one image of each subject and class, so that the permutations of the test
    are of what is independent. Only within a class: features that tell the class tell the site wherever the class's
    share differs, which is no fault.

    Args:
        layers: features by layer, each (N, F).
        label: class (N,).
        site: name (N,).
        subject: name (N,).
        seed: seed of the split, the classifiers and the permutations.

    Returns:
        the columns of :py:func:`~monai_armed.metrics.audit.audit_features` (a cluster is a site). A class that has no
        two sites in either half is left out.
    """
    codes = np.unique(site, return_inverse=True)[1]
    chosen = one_a_subject(subject, label, seed)
    tables = []
    for value in np.unique(label):
        of_class = chosen[label[chosen] == value]
        if len(of_class) < 4:
            continue
        parts = [of_class[half] for half in halves(label[of_class], site[of_class], subject[of_class], seed)]
        learn, test = (LayerFeatures({n: x[part] for n, x in layers.items()}, codes[part]) for part in parts)
        table = audit_features(learn, test, seed)
        tables += [table.assign(**{"class": f"{value:g}"})] if len(table) else []
    joined = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)
    table = joined.rename(columns={"null_high": "chance_high"})[COLUMNS]
    return table.assign(p_adjusted=false_discovery_control(table["p"]) if len(table) else [])
