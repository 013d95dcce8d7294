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

"""A recipe that is chosen among several on inner left-out sites."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from methods import Fitted, Method, are_many, armed, on_components
from scores import left_out, seen, within_site
from sklearn.decomposition import PCA
from studies import Study
from tqdm import tqdm

from monai_armed.metrics.strength import choose_strength

__all__ = ["CHOSEN", "chosen"]

COMPONENTS = (100, 200)
INNER_FOLDS = 3
Candidates = Mapping[str, Callable[[bool], Method]]


def chosen(candidates: Candidates) -> Method:
    """
    Args:
        candidates: by name, what makes the method of whether random effects are fitted.

    Returns:
        the method that fits all of them to parts of the training people, and takes the one whose features tell least of
        the site among those that are within one standard error of the best on inner left-out sites
        (:py:func:`monai_armed.metrics.strength.choose_strength`). Sites that are left out take no part.
    """

    def fit(x: np.ndarray, y: np.ndarray, site: np.ndarray, is_class: bool) -> Fitted:
        # so many components keep all that there is of these people, and are fewer to take inner components of
        turned = PCA(svd_solver="full").fit_transform(x) if are_many(x) else x
        inner = Study("inner", turned, y, site, [str(s) for s in range(site.max() + 1)])
        names = [name for name in candidates if are_many(x) or name.endswith(f" {COMPONENTS[0]}")]
        scores, errors, probes, alone = [], [], [], 0.0
        for name in names:
            method = candidates[name](False)
            prediction = left_out(inner, method, INNER_FOLDS)
            found = seen(inner, method, INNER_FOLDS, seed=0)
            value, error = within_site(inner, prediction) if is_class else _r2(y, prediction, site)
            scores.append(value)
            errors.append(error)
            probes.append(found["given label"])
            alone = found["label alone"]
        best = choose_strength(scores, errors, probes, chance=alone)
        figures = [f"{n} {s:.3f}+-{e:.3f}, probe {p:.3f}" for n, s, e, p in zip(names, scores, errors, probes)]
        tqdm.write(f"for {len(y)} people of {len(inner.names)} sites {names[best]} is chosen of: {'; '.join(figures)}")
        fitted = candidates[names[best]](True)(x, y, site, is_class)
        return fitted._replace(recipe=names[best])

    return fit


def _r2(label: np.ndarray, prediction: np.ndarray, site: np.ndarray) -> tuple[float, float]:
    """R2 over all people, and its standard error by leaving out each site (jackknife)."""

    def r2(kept: np.ndarray) -> float:
        return float(1 - ((label - prediction)[kept] ** 2).sum() / ((label[kept] - label[kept].mean()) ** 2).sum())

    without = np.array([r2(site != s) for s in np.unique(site)])
    error = np.sqrt((len(without) - 1) * without.var())
    return r2(np.ones(len(label), bool)), float(error)


def _candidates(makers: Mapping[str, Callable[[bool], Method]]) -> dict[str, Callable[[bool], Method]]:
    return {
        f"{name}, {size}": lambda mixed, make=make, size=size: on_components(make(mixed), size)
        for name, make in makers.items()
        for size in COMPONENTS
    }


CHOSEN: dict[str, Method] = {
    "ARMED: erasure chosen": chosen(
        _candidates(
            {
                "within label": lambda mixed: armed(mixed),
                "marginal, all directions": lambda mixed: armed(
                    mixed, within_label=False, keep_label=False, above_noise=False
                ),
            }
        )
    ),
}
