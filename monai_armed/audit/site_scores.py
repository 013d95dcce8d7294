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
"""How good a prediction is at each site: AUROC or Dice with intervals, calibration error, coverage of sets."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from scipy import stats
from scipy.special import expit

from ..metrics.calibration import Calibration, calibration_error
from ..metrics.comparison import delong_interval

__all__ = ["auroc_by_site", "calibration_by_site", "coverage_by_site", "mean_by_site"]

LEVEL = 0.95
COVERAGE = 0.9
DRAWS = 100


def auroc_by_site(label: np.ndarray, score: np.ndarray, site: np.ndarray, subject: np.ndarray) -> pd.DataFrame:
    """
    AUROC of all samples and within each site, with DeLong's interval, which knows that images of one subject are alike
    (:py:func:`~monai_armed.metrics.comparison.delong_interval`).

    Args:
        label: class (N,), 0 or 1.
        score: (N,), higher for class 1.
        site: name (N,).
        subject: name (N,).

    Returns:
        a row for all sites and for each: ``site``, ``images``, ``subjects``, ``positive`` (images of class 1),
        ``auroc``, ``low`` and ``high``, which are NaN where a class has not two subjects; and ``low_worst``,
        ``high_worst``, wider ones that hold for all sites at once, and so for the worst of them.
    """
    sites = np.unique(site)
    rows = []
    for name in ("all", *sites):
        inside = np.ones(len(site), bool) if name == "all" else site == name
        part = label[inside], score[inside]
        row = {"site": name, "images": int(inside.sum()), "subjects": len(np.unique(subject[inside]))}
        row["positive"] = int(part[0].sum())
        enough = all(len(np.unique(subject[inside & (label == value)])) > 1 for value in (0, 1))
        values = [(np.nan,) * 3] * 2
        if enough:
            levels = (LEVEL, LEVEL if name == "all" else 1 - (1 - LEVEL) / len(sites))
            values = [delong_interval(*part, level=level, subject=subject[inside]) for level in levels]
        row.update(zip(("auroc", "low", "high"), values[0]), low_worst=values[1][1], high_worst=values[1][2])
        rows.append(row)
    return pd.DataFrame(rows)


def mean_by_site(value: np.ndarray, site: np.ndarray, subject: np.ndarray, name: str = "dice") -> pd.DataFrame:
    """
    Mean of a number of each image, such as its Dice, over all sites and in each, with t intervals over subjects.

    Args:
        value: (N,); NaN is left out.
        site: name (N,).
        subject: name (N,).
        name: of the number, a column of the result.

    Returns:
        as :py:func:`auroc_by_site`, with the number in place of the AUROC.
    """
    table = pd.DataFrame({"site": site, "subject": subject, "value": value}).dropna()
    sites = np.unique(site)
    rows = []
    for each in ("all", *sites):
        part = table if each == "all" else table[table["site"] == each]
        means = part.groupby("subject")["value"].mean()
        error = float(means.sem()) if len(means) > 1 else np.nan
        row = {"site": each, "images": len(part), "subjects": len(means), name: float(means.mean())}
        for end, level in (("", LEVEL), ("_worst", LEVEL if each == "all" else 1 - (1 - LEVEL) / len(sites))):
            half = stats.t.ppf(0.5 + level / 2, max(len(means) - 1, 1)) * error
            row |= {f"low{end}": row[name] - half, f"high{end}": row[name] + half}
        rows.append(row)
    return pd.DataFrame(rows)


def calibration_by_site(label: np.ndarray, score: np.ndarray, site: np.ndarray, seed: int = 0) -> pd.DataFrame:
    """
    Expected calibration error of the probabilities, as they are, of all samples and at each site. Few samples alone
    make one: beside it stands what a network would have whose every probability is right.

    Args:
        label: class (N,), 0 or 1.
        score: logit (N,).
        site: name (N,).
        seed: seed of the labels that such a network would have.

    Returns:
        a row for all sites and for each: ``site``, ``images``, ``observed`` share of class 1, ``predicted`` mean
        probability, ``calibration_error``, and of a calibrated network its mean, ``by_chance``, and 95th percentile,
        ``by_chance_high``.
    """
    rng, probability, rows = np.random.default_rng(seed), expit(score), []
    for name in ("all", *np.unique(site)):
        inside = np.ones(len(site), bool) if name == "all" else site == name
        p, y = probability[inside], label[inside]
        chance = [_error(p, rng.random(len(p)) < p) for _ in range(DRAWS)]
        row = {"site": name, "images": len(p), "observed": y.mean(), "predicted": p.mean()}
        row |= {"calibration_error": _error(p, y), "by_chance": np.mean(chance)}
        rows.append(row | {"by_chance_high": np.quantile(chance, 0.95)})
    return pd.DataFrame(rows)


def _error(probability: np.ndarray, label: np.ndarray) -> float:
    both = np.stack([1 - probability, probability], 1)
    return calibration_error(torch.as_tensor(both), torch.as_tensor(label.astype(int)))


def coverage_by_site(label: np.ndarray, score: np.ndarray, site: np.ndarray) -> pd.DataFrame:
    """
    Each site in turn is held out, and prediction sets (:py:class:`~monai_armed.metrics.calibration.Calibration`) that
    the other sites calibrate are tried on it: they cover 0.9 of a site that is like the others.

    Args:
        label: class (N,), 0 or 1.
        score: logit (N,).
        site: name (N,).

    Returns:
        a row a site: ``site``, ``images``, share ``covered``, mean ``set_size``, and the share that is
        ``guaranteed`` of a new site, 0.9 m / (m + 1), for m other sites, whatever the sites are like; the last row is
        the ``mean`` over sites, of which the guarantee holds. No rows where there are no three sites.
    """
    names = np.unique(site)
    guaranteed = COVERAGE * (len(names) - 1) / len(names)
    logits, labels, rows = torch.tensor(score)[:, None], torch.tensor(label), []
    for name in names if len(names) > 2 else ():
        inside = site == name
        rest = torch.as_tensor(~inside)
        calibration = Calibration(logits[rest], labels[rest], site[~inside].tolist(), guaranteed, classification=True)
        covered = calibration.covered(logits[~rest], labels[~rest]).double().mean()
        size = calibration.sets(logits[~rest]).double().sum(1).mean()
        row = {"site": name, "images": int(inside.sum()), "covered": float(covered), "set_size": float(size)}
        rows.append(row | {"guaranteed": guaranteed})
    table = pd.DataFrame(rows, columns=["site", "images", "covered", "set_size", "guaranteed"])
    if len(table):
        mean = {"site": "mean", "images": len(site), **table[["covered", "set_size", "guaranteed"]].mean()}
        table = pd.concat([table, pd.DataFrame([mean])], ignore_index=True)
    return table
