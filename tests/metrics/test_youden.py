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
import pytest

from monai_armed.metrics.youden import youden_metrics


def test_by_hand():
    # thresholds 0.4 and 0.8 give J = 2/3 - 0 and 3/3 - 1/2; the first is the larger
    metrics = youden_metrics([0, 0, 1, 1, 1], [0.1, 0.6, 0.5, 0.7, 0.8])
    assert metrics["auroc"] == pytest.approx(5 / 6)
    assert metrics["sensitivity"] == pytest.approx(2 / 3) and metrics["specificity"] == 1.0
    assert metrics["balanced_accuracy"] == pytest.approx(5 / 6) and metrics["threshold"] == 0.7


def test_the_threshold_gives_the_metrics_and_none_is_better():
    rng = np.random.default_rng(0)
    label = rng.integers(2, size=200)
    score = label + rng.normal(size=200)
    metrics = youden_metrics(label, score)

    def balanced(threshold):
        positive = score >= threshold
        return (positive[label == 1].mean() + (~positive)[label == 0].mean()) / 2

    assert metrics["balanced_accuracy"] == pytest.approx(balanced(metrics["threshold"]))
    assert metrics["balanced_accuracy"] == pytest.approx(max(map(balanced, score)))


@pytest.mark.parametrize(
    "label, score, message",
    [([1, 1], [0.1, 0.2], r"both classes.*\[1\]"), ([0, 1], [0.1, np.nan], "1 of 2 scores are not finite")],
)
def test_bad_input(label, score, message):
    with pytest.raises(ValueError, match=message):
        youden_metrics(label, score)
