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

"""Statistics for the comparison of models: per-cluster metrics, intervals over folds, paired tests, DeLong intervals.

Results travel as tidy pandas frames: one row a number, with the columns ``model``, ``fold``, ``metric``, ``value`` and
any further column that tells settings apart (simulation, partition ...).
"""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

__all__ = [
    "binary_metrics",
    "cluster_metrics",
    "delong_interval",
    "paired_t_tests",
    "setting_columns",
    "summarize_folds",
    "worst_cluster",
]

REQUIRED_COLUMNS = ("model", "fold", "metric", "value")
SHARES = ("accuracy", "auroc", "leak", "sensitivity", "specificity")
"""Last words of the names of metrics that go from 0 to 1."""


def binary_metrics(label: np.ndarray, probability: np.ndarray, threshold: float = 0.5) -> dict[str, float]:
    """Accuracy, balanced accuracy and AUROC of a binary prediction; the last two are NaN where there is one class.

    Args:
        label: true class (N,), 0 or 1.
        probability: predicted P(y = 1) (N,).
        threshold: a probability above it predicts class 1.

    Raises:
        ValueError: when lengths differ, there are no samples, labels are not 0 or 1, or a probability is not finite.
    """
    label, probability = _checked_binary(label, probability)
    predicted = probability > threshold
    both = len(np.unique(label)) == 2
    return {
        "accuracy": float(accuracy_score(label, predicted)),
        "balanced_accuracy": float(balanced_accuracy_score(label, predicted)) if both else float("nan"),
        "auroc": float(roc_auc_score(label, probability)) if both else float("nan"),
    }


def cluster_metrics(
    label: np.ndarray, probability: np.ndarray, cluster: np.ndarray, threshold: float = 0.5
) -> pd.DataFrame:
    """The metrics of :py:func:`binary_metrics` within each cluster.

    Args:
        label: true class (N,), 0 or 1.
        probability: predicted P(y = 1) (N,).
        cluster: cluster of each sample (N,), an index or a name.
        threshold: a probability above it predicts class 1.

    Returns:
        One row a cluster: ``cluster``, ``num_samples`` and one column a metric.
    """
    label, probability = _checked_binary(label, probability)
    cluster = np.asarray(cluster)
    if cluster.shape != label.shape:
        raise ValueError(f"cluster must have the shape of label {label.shape}, got {cluster.shape}.")
    rows = []
    for j in np.unique(cluster):
        inside = cluster == j
        metrics = binary_metrics(label[inside], probability[inside], threshold)
        rows.append({"cluster": j, "num_samples": int(inside.sum()), **metrics})
    return pd.DataFrame(rows)


def worst_cluster(per_cluster: pd.DataFrame) -> dict[str, float]:
    """The smallest value of each metric over the clusters where it is defined; NaN where it is defined in none.

    Args:
        per_cluster: frame from :py:func:`cluster_metrics`.
    """
    metrics = per_cluster.drop(columns=["cluster", "num_samples"])
    return {f"worst_cluster_{name}": float(value) for name, value in metrics.min(skipna=True).items()}


def delong_interval(
    label: np.ndarray, score: np.ndarray, level: float = 0.95, subject: np.ndarray | None = None
) -> tuple[float, float, float]:
    """AUROC of one scored test set with DeLong's confidence interval (DeLong et al. 1988; ranks as Sun and Xu 2014).

    The interval is the normal one, cut at 0 and 1. It has no width where DeLong's variance is zero: scores that
    separate the classes perfectly, or that are all the same (AUROC 0.5: such scores say nothing).

    Args:
        label: true class (N,), 0 or 1.
        score: score of class 1 (N,), a probability or a logit; ties count one half.
        level: confidence level.
        subject: who each sample is of (N,), where a subject has several: these count together, whatever their classes
            (Obuchowski 1997, Nonparametric analysis of clustered ROC curve data, Biometrics 53).

    Returns:
        AUROC, lower and upper limit.

    Raises:
        ValueError: when a class has fewer than two samples or subjects, or the input is not valid.
    """
    label, score = _checked_binary(label, score)
    positive, negative = score[label == 1], score[label == 0]
    m, n = len(positive), len(negative)
    if min(m, n) < 2:
        raise ValueError(f"DeLong's interval needs two samples of each class or more, got {n} of 0 and {m} of 1.")
    ranks = stats.rankdata(np.concatenate([positive, negative]))
    # share of the other class that each sample is ranked rightly against
    placement = np.empty(len(label))
    placement[label == 1] = (ranks[:m] - stats.rankdata(positive)) / n
    placement[label == 0] = 1 - (ranks[m:] - stats.rankdata(negative)) / m
    auroc = placement[label == 1].mean()
    index = np.arange(len(label)) if subject is None else np.unique(np.asarray(subject), return_inverse=True)[1]
    num_subjects = index.max() + 1
    total, variance = [], 0.0
    for value, size in ((1, m), (0, n)):
        of_class = label == value
        total.append(np.bincount(index[of_class], placement[of_class] - auroc, num_subjects) / size)
        if (there := len(np.unique(index[of_class]))) < 2:
            raise ValueError(f"DeLong's interval needs two subjects of each class or more, got {there} of {value}.")
        variance += there / (there - 1) * (total[-1] ** 2).sum()
    variance += 2 * num_subjects / (num_subjects - 1) * (total[0] * total[1]).sum()
    half = stats.norm.ppf(0.5 + level / 2) * np.sqrt(max(variance, 0.0))
    return float(auroc), float(max(auroc - half, 0.0)), float(min(auroc + half, 1.0))


def setting_columns(results: pd.DataFrame) -> list[str]:
    """Columns of a tidy results frame that tell settings apart: all but ``model``, ``fold`` and ``value``.

    Raises:
        ValueError: when a required column is missing, a cell other than ``value`` is empty, or a number stands twice
            for the same model, fold and setting.
    """
    if missing := [c for c in REQUIRED_COLUMNS if c not in results]:
        raise ValueError(f"results lack the columns {missing}: a tidy frame has {list(REQUIRED_COLUMNS)}.")
    settings = [c for c in results.columns if c not in ("model", "fold", "value")]
    if (empty := results[[*settings, "model", "fold"]].isna()).any(axis=None):
        raise ValueError(f"results have empty cells in the columns {list(empty.columns[empty.any()])}: fill them in.")
    twice = results.duplicated([*settings, "model", "fold"])
    if twice.any():
        row = results.loc[twice, [*settings, "model", "fold"]].iloc[0].to_dict()
        raise ValueError(f"{twice.sum()} results stand twice, the first for {row}: keep one row a model and fold.")
    return settings


def summarize_folds(results: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Mean over folds with its t interval, for each model in each setting.

    Folds of a cross-validation share training samples, so such an interval is narrower than that of new data.

    Args:
        results: tidy frame. Values that are not finite (an AUROC where a fold had one class) are left out.
        level: confidence level.

    Returns:
        One row a setting and model, in order of appearance: ``num_folds`` that count, ``mean``, ``sd``, ``low``,
        ``high``; the last three are NaN for fewer than two folds. Limits of metrics that go from 0 to 1, by their
        names those of :py:data:`SHARES`, are cut there: a t interval of few folds knows no ends.
    """
    settings = setting_columns(results)
    finite = results.assign(value=results["value"].where(np.isfinite(results["value"])))
    summary = finite.groupby([*settings, "model"], sort=False)["value"].agg(["count", "mean", "std"]).reset_index()
    summary = summary.rename(columns={"count": "num_folds", "std": "sd"})
    n = summary["num_folds"].where(summary["num_folds"] > 1)
    half = stats.t.ppf(0.5 + level / 2, n - 1) * summary["sd"] / np.sqrt(n)
    low, high = summary["mean"] - half, summary["mean"] + half
    share = summary["metric"].str.endswith(SHARES) & summary["mean"].between(0, 1)  # not one that is in per cent
    return summary.assign(low=low.mask(share & (low < 0), 0.0), high=high.mask(share & (high > 1), 1.0))


def paired_t_tests(results: pd.DataFrame, test_ratio: float | None = None) -> pd.DataFrame:
    """Paired t-test over folds of each pair of models in each setting, on the folds that both have.

    Args:
        results: tidy frame.
        test_ratio: size of a test part, as a share of that of its training part, where folds are of the same samples.
            Their training parts overlap, so that the differences vary less over folds than over new data; the variance
            is then corrected (Nadeau and Bengio 2003, Inference for the generalization error, Machine Learning 52).

    Returns:
        One row a setting and pair: ``model_a``, ``model_b``, ``num_folds``, ``difference`` (mean of a - b), ``t``,
        ``p`` (two-sided), and with ``test_ratio`` also ``p_corrected``. t and p are NaN for fewer than two shared
        folds; t = 0, p = 1 where all folds are equal.
    """
    settings = setting_columns(results)
    columns = [*settings, "model_a", "model_b", "num_folds", "difference", "t", "p"]
    rows = []
    for key, part in results.groupby(settings, sort=False):
        wide = part.pivot(index="fold", columns="model", values="value")
        for a, b in itertools.combinations(part["model"].unique(), 2):
            pair = wide[[a, b]].replace([np.inf, -np.inf], np.nan).dropna()
            t, p = _paired_t(pair[a].to_numpy(float), pair[b].to_numpy(float))
            difference = float((pair[a] - pair[b]).mean())
            setting = dict(zip(settings, key))
            rows.append({**setting, "model_a": a, "model_b": b, "num_folds": len(pair), "difference": difference})
            rows[-1].update(t=t, p=p)
    tests = pd.DataFrame(rows, columns=columns)
    if test_ratio is None:
        return tests
    n = tests["num_folds"].where(tests["num_folds"] > 1).astype(float)
    corrected = tests["t"].astype(float).abs() / np.sqrt(1 + n * test_ratio)
    return tests.assign(p_corrected=2 * stats.t.sf(corrected, n - 1))


def _paired_t(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    if len(a) < 2:
        return float("nan"), float("nan")
    if np.array_equal(a, b):
        return 0.0, 1.0
    with warnings.catch_warnings():  # equal differences in all folds: SciPy's t is infinite, and says so
        warnings.simplefilter("ignore", RuntimeWarning)
        test = stats.ttest_rel(a, b)
    return float(test.statistic), float(test.pvalue)


def _checked_binary(label: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    label, score = np.asarray(label), np.asarray(score, np.float64)
    if label.ndim != 1 or label.shape != score.shape or not len(label):
        raise ValueError(f"label and score must both be (N,) with N > 0, got {label.shape} and {score.shape}.")
    if not np.isin(label, (0, 1)).all():
        raise ValueError(f"label must be 0 or 1, got {np.unique(label)[:10].tolist()}.")
    if not np.isfinite(score).all():
        raise ValueError(f"{(~np.isfinite(score)).sum()} of {len(score)} scores are not finite.")
    return label.astype(np.int64), score
