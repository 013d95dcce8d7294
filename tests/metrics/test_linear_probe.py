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

import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score

from monai_armed.metrics.linear_probe import linear_probe_auroc
from monai_armed.networks.erasure import FeatureSums, fit_eraser

SIZE = 8


def draw(samples, clusters, seed, apart=1.0):
    torch.manual_seed(1)
    mixing, means = torch.randn(SIZE, SIZE) / SIZE**0.5, apart * torch.randn(clusters, SIZE) / SIZE**0.5
    torch.manual_seed(seed)
    cluster = torch.randint(clusters, (samples,))
    label = (torch.rand(samples) < (cluster + 1) / (clusters + 1)).long()
    features = (torch.randn(samples, SIZE) + means[cluster]) @ mixing + 2 * label.unsqueeze(1)
    return features, cluster, label


def sums_of(features, cluster, label, clusters, **options):
    sums = FeatureSums(SIZE, clusters, **(options or {"num_classes": 2}))
    sums.update(features, cluster, label)
    return sums


def probe(learn, held_out, clusters):
    """The same with every sample in hand."""
    found = weight = 0.0
    for k in range(2):
        for i in range(clusters):
            for j in range(i + 1, clusters):
                (x, z), (other, truth) = (
                    [t[(c[2] == k) & ((c[1] == i) | (c[1] == j))].numpy() for t in c[:2]] for c in (learn, held_out)
                )
                scores = LinearDiscriminantAnalysis().fit(x, z).decision_function(other)
                pairs = (truth == i).sum() * (truth == j).sum()
                found, weight = found + pairs * roc_auc_score(truth, scores), weight + pairs
    return found / weight


@pytest.mark.parametrize(("clusters", "apart"), [(2, 0.5), (2, 2.0), (5, 1.0), (5, 0.0)])
def test_it_is_what_discriminants_find_among_held_out_samples(clusters, apart):
    learn, held_out = (draw(3000, clusters, seed, apart) for seed in (2, 3))
    found = linear_probe_auroc(sums_of(*learn, clusters), sums_of(*held_out, clusters))
    assert found == pytest.approx(probe(learn, held_out, clusters), abs=0.015)


def test_few_samples_that_are_told_apart_by_heart_are_not_among_others():
    learn = draw(40, 2, 2, apart=0.0)
    assert linear_probe_auroc(sums_of(*learn, 2), sums_of(*learn, 2)) > 0.6
    many = draw(4000, 2, 4, apart=0.0)
    assert linear_probe_auroc(sums_of(*learn, 2), sums_of(*many, 2)) == pytest.approx(0.5, abs=0.03)


def test_after_erasure_it_is_at_chance():
    learn, held_out = (draw(4000, 3, seed, apart=2.0) for seed in (2, 3))
    eraser = fit_eraser(sums_of(*learn, 3))
    before = linear_probe_auroc(sums_of(*learn, 3), sums_of(*held_out, 3))
    erased = [sums_of(eraser(x), cluster, label, 3) for x, cluster, label in (learn, held_out)]
    assert before > 0.85 and linear_probe_auroc(*erased) == pytest.approx(0.5, abs=0.02)


def test_what_a_continuous_label_tells_is_no_leak():
    samples = []
    for seed in (2, 3):
        _, cluster, _ = draw(4000, 2, seed)
        age = cluster + torch.randn(4000)
        samples.append((torch.randn(4000, SIZE) + age.unsqueeze(1), cluster, age))
    given = [sums_of(*sample, 2, num_values=1) for sample in samples]
    not_given = [sums_of(x, cluster, None, 2, num_classes=0) for x, cluster, _ in samples]
    assert linear_probe_auroc(*given) == pytest.approx(0.5, abs=0.02)
    assert linear_probe_auroc(*not_given) > 0.65


def test_sums_that_do_not_go_together_are_refused():
    sums = sums_of(*draw(50, 2, 2), 2)
    with pytest.raises(ValueError, match="of the same features, clusters and labels"):
        linear_probe_auroc(sums, FeatureSums(SIZE, 3, 2))
    with pytest.raises(ValueError, match="no two clusters"):
        linear_probe_auroc(sums, FeatureSums(SIZE, 2, 2))
