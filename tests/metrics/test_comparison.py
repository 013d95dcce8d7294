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
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from monai_armed.metrics.comparison import (
    binary_metrics,
    cluster_metrics,
    delong_interval,
    paired_t_tests,
    summarize_folds,
    worst_cluster,
)


def tidy(**values):
    return pd.DataFrame(
        [
            {"simulation": 1, "model": model, "fold": k, "metric": "accuracy", "value": v}
            for model, column in values.items()
            for k, v in enumerate(column)
        ]
    )


def test_binary_metrics_by_hand():
    metrics = binary_metrics(np.array([0, 0, 0, 1]), np.array([0.1, 0.6, 0.2, 0.55]))
    assert metrics == pytest.approx({"accuracy": 0.75, "balanced_accuracy": (2 / 3 + 1) / 2, "auroc": 2 / 3})


def test_one_class_has_an_accuracy_alone():
    metrics = binary_metrics(np.ones(3), np.array([0.9, 0.8, 0.1]))
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert np.isnan(metrics["auroc"]) and np.isnan(metrics["balanced_accuracy"])


@pytest.mark.parametrize(
    "label, score, message",
    [
        ([0, 2], [0.1, 0.2], r"label must be 0 or 1, got \[0, 2\]"),
        ([0, 1], [0.1, np.nan], "1 of 2 scores are not finite"),
        ([0, 1], [0.1], r"must both be \(N,\)"),
        ([], [], "N > 0"),
    ],
)
def test_bad_predictions(label, score, message):
    with pytest.raises(ValueError, match=message):
        binary_metrics(np.array(label), np.array(score))


def test_the_worst_cluster_is_the_minimum_where_defined():
    label = np.array([0, 1, 0, 1, 1, 1])
    probability = np.array([0.2, 0.9, 0.7, 0.6, 0.9, 0.2])
    per_cluster = cluster_metrics(label, probability, np.array(["a", "a", "b", "b", "c", "c"]))
    assert per_cluster["num_samples"].tolist() == [2, 2, 2]
    assert per_cluster["accuracy"].tolist() == [1.0, 0.5, 0.5]
    worst = worst_cluster(per_cluster)  # cluster c has one class: no AUROC
    assert worst == {
        "worst_cluster_accuracy": 0.5,
        "worst_cluster_balanced_accuracy": 0.5,
        "worst_cluster_auroc": 0.0,
    }


def test_delong_equals_the_definition():
    rng = np.random.RandomState(0)
    label = rng.randint(0, 2, 60)
    score = np.round(rng.randn(60) + label, 1)  # rounded, so that there are ties
    a, b = score[label == 1], score[label == 0]
    kernel = (a[:, None] > b) + 0.5 * (a[:, None] == b)
    variance = kernel.mean(1).var(ddof=1) / len(a) + kernel.mean(0).var(ddof=1) / len(b)
    auroc, low, high = delong_interval(label, score)
    assert auroc == pytest.approx(roc_auc_score(label, score))
    assert high - auroc == pytest.approx(1.959964 * np.sqrt(variance))
    assert auroc - low == pytest.approx(1.959964 * np.sqrt(variance))


def test_delong_agrees_with_a_published_implementation():
    reference = pytest.importorskip("confidenceinterval")
    rng = np.random.RandomState(1)
    label = rng.randint(0, 2, 200)
    score = rng.randn(200) + label
    expected, (low, high) = reference.roc_auc_score(label, score, confidence_level=0.9)
    assert delong_interval(label, score, level=0.9) == pytest.approx((expected, low, high), abs=1e-5)


def test_delong_covers_the_truth():
    # X ~ N(0, 1) against N(1, 1): AUROC = Phi(1 / sqrt 2)
    rng = np.random.RandomState(2)
    truth, label = stats.norm.cdf(1 / np.sqrt(2)), np.repeat([0, 1], [60, 40])
    inside = 0
    for _ in range(500):
        _, low, high = delong_interval(label, rng.randn(100) + label)
        inside += low <= truth <= high
    assert 0.91 <= inside / 500 <= 0.98


def test_delong_of_identical_and_of_perfect_scores():
    label = np.repeat([0, 1], 5)
    assert delong_interval(label, np.full(10, 0.3)) == (0.5, 0.5, 0.5)
    assert delong_interval(label, label.astype(float)) == (1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="two samples of each class or more, got 5 of 0 and 1 of 1"):
        delong_interval(np.repeat([0, 1], [5, 1]), np.arange(6.0))


def test_delong_interval_stays_in_the_unit_interval():
    _, low, high = delong_interval(np.array([0, 0, 0, 1, 1, 1]), np.array([0.1, 0.2, 0.5, 0.4, 0.6, 0.7]))
    assert 0 <= low < high == 1


def test_summary_equals_scipy():
    values = np.array([0.71, 0.74, 0.78, 0.69])
    row = summarize_folds(tidy(armed=values)).iloc[0]
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert row["num_folds"] == 4 and row["mean"] == pytest.approx(values.mean())
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))


def test_limits_of_a_share_do_not_leave_its_scale():
    summary = summarize_folds(tidy(a=[0.95, 0.75], b=[0.1, 0.3], c=[95.0, 75.0]))
    assert summary["high"][0] == 1.0 and summary["low"][1] == 0.0 and summary["high"][2] > 100
    other = summarize_folds(tidy(a=[0.95, 0.75]).assign(metric="gain"))
    assert other["high"][0] == pytest.approx(0.85 + 12.706 * 0.1, abs=1e-3)


def test_summary_leaves_out_what_is_not_finite_and_keeps_the_order():
    summary = summarize_folds(tidy(b=[0.5, np.nan, 0.7], a=[0.4], c=[np.nan]))
    assert summary["model"].tolist() == ["b", "a", "c"] and summary["num_folds"].tolist() == [2, 1, 0]
    assert summary["mean"][0] == pytest.approx(0.6) and summary["mean"][1] == 0.4 and np.isnan(summary["mean"][2])
    assert np.isfinite(summary["low"]).tolist() == [True, False, False]


def test_paired_t_tests_equal_scipy_on_the_shared_folds():
    a, b = [0.7, 0.8, 0.75, 0.9], [0.6, 0.75, np.nan, 0.8]
    row = paired_t_tests(tidy(armed=a, plain=b)).iloc[0]
    expected = stats.ttest_rel([0.7, 0.8, 0.9], [0.6, 0.75, 0.8])
    assert (row["model_a"], row["model_b"], row["num_folds"]) == ("armed", "plain", 3)
    assert (row["t"], row["p"]) == pytest.approx((expected.statistic, expected.pvalue))
    assert row["difference"] == pytest.approx(0.25 / 3)


def test_paired_t_tests_are_made_within_settings():
    one, two = tidy(a=[0.1, 0.3], b=[0.2, 0.6]), tidy(a=[0.5, 0.9], b=[0.2, 0.6]).assign(simulation=2)
    tests = paired_t_tests(pd.concat([one, two]))
    assert tests["simulation"].tolist() == [1, 2]
    assert tests["difference"].tolist() == pytest.approx([-0.2, 0.3])


def test_paired_t_test_without_variation_or_folds():
    tests = paired_t_tests(tidy(a=[0.5, 0.6], b=[0.5, 0.6], c=[0.4])).set_index(["model_a", "model_b"])
    assert tuple(tests.loc[("a", "b"), ["t", "p"]]) == (0.0, 1.0)
    assert tests.loc[("a", "c"), ["t", "p"]].isna().all()


def test_the_correction_for_overlapping_training_parts():
    a, b = [0.7, 0.8, 0.75, 0.9, 0.8], [0.6, 0.75, 0.7, 0.8, 0.79]
    row = paired_t_tests(tidy(armed=a, plain=b), test_ratio=0.25).iloc[0]
    difference = np.subtract(a, b)
    t = difference.mean() / np.sqrt((1 / 5 + 0.25) * difference.var(ddof=1))
    assert row["p_corrected"] == pytest.approx(2 * stats.t.sf(t, 4)) and row["p_corrected"] > row["p"]
    assert paired_t_tests(tidy(a=[0.5], b=[0.6]), test_ratio=0.25)["p_corrected"].isna().all()


def test_frames_that_are_not_tidy():
    with pytest.raises(ValueError, match=r"lack the columns \['fold', 'metric'\]"):
        summarize_folds(pd.DataFrame({"model": ["a"], "value": [1.0]}))
    with pytest.raises(ValueError, match=r"1 results stand twice, the first for .*'model': 'a', 'fold': 0"):
        summarize_folds(pd.concat([tidy(a=[0.5]), tidy(a=[0.6])]))
    with pytest.raises(ValueError, match=r"empty cells in the columns \['simulation'\]"):
        paired_t_tests(tidy(a=[0.5]).assign(simulation=np.nan))


def test_delong_of_images_that_are_there_twice_is_that_of_subjects():
    rng = np.random.default_rng(3)
    label, score = rng.integers(0, 2, 60), rng.normal(size=60)
    once = delong_interval(label, score)
    twice = [np.repeat(x, 2) for x in (label, score)]
    assert delong_interval(*twice, subject=np.repeat(np.arange(60), 2)) == pytest.approx(once)
    assert delong_interval(label, score, subject=np.arange(60)) == pytest.approx(once)
    narrow = delong_interval(*twice)
    assert narrow[2] - narrow[1] < 0.8 * (once[2] - once[1])


def test_delong_of_subjects_covers():
    rng, covered = np.random.default_rng(4), 0
    subject, label = np.repeat(np.arange(40), 4), np.tile([0, 0, 1, 1], 40)  # every subject has both classes
    true = 0.7602  # Phi(1 / sqrt(2)): of two images, of two subjects or of one, whose own level does not count
    for _ in range(200):
        score = rng.normal(size=40)[subject] * 0.6 + rng.normal(size=160) * 0.8 + label
        _, low, high = delong_interval(label, score, subject=subject)
        covered += low < true < high
    assert 180 <= covered <= 199


def test_delong_needs_two_subjects_of_each_class():
    with pytest.raises(ValueError, match="two subjects of each class or more, got 1 of 1"):
        delong_interval(np.array([1, 1, 0, 0]), np.arange(4.0), subject=np.array([0, 0, 1, 2]))
