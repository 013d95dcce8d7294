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

"""Hierarchical conformal prediction covers new clusters, and says when it cannot."""

from __future__ import annotations

import functools
import json
import math

import numpy as np
import pytest
import torch

from monai_armed.losses import PoissonLikelihoodLoss
from monai_armed.metrics.calibration import (
    Calibration,
    calibrate,
    calibration_error,
    hierarchical_quantile,
)
from monai_armed.metrics.prediction_sets import leave_one_cluster_out, set_columns
from monai_armed.networks import ARMED, DFNN


def test_quantile_counts_each_cluster_once_and_one_more():
    scores, clusters = np.array([1.0, 2.0, 3.0, 4.0, 10.0]), ["a", "a", "a", "a", "b"]
    # weights 1/12 of each of a, 1/3 of b, 1/3 of infinity
    assert hierarchical_quantile(scores, clusters, 2 / 12) == 2.0
    assert hierarchical_quantile(scores, clusters, 1 / 3) == 4.0
    assert hierarchical_quantile(scores, clusters, 0.5) == 10.0
    assert hierarchical_quantile(scores, clusters, 0.7) == math.inf
    with pytest.raises(ValueError, match="level must be between 0 and 1, got 1"):
        hierarchical_quantile(scores, clusters, 1.0)
    with pytest.raises(ValueError, match="scores must be finite"):
        hierarchical_quantile([np.nan], ["a"], 0.5)


def _clusters(rng, number, binary):
    """Clusters of unequal size whose intercepts differ, and predictions that know nothing of them."""
    size = rng.integers(3, 60, number)
    cluster = np.repeat(np.arange(number), size)
    x = rng.normal(size=len(cluster))
    eta = 2 * x + 1.5 * rng.normal(size=number)[cluster]
    label = rng.uniform(size=len(x)) < 1 / (1 + np.exp(-eta)) if binary else eta + rng.normal(size=len(x))
    return torch.tensor(6 * x if binary else 2 * x)[:, None], torch.tensor(label.astype(float)), cluster


@pytest.mark.parametrize("binary", [True, False])
def test_new_clusters_are_covered_where_pooled_quantiles_and_plain_probabilities_are_not(binary):
    """Mean coverage of one new cluster, over draws of both sides; the guarantee is of that mean."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(150):
        calibration = Calibration(*_clusters(rng, 25, binary), level=0.9)
        prediction, label, _ = _clusters(rng, 8, binary)
        covered.append(calibration.covered(prediction, label).double().mean())
        if binary:
            sets = calibration.sets(prediction)
            assert torch.equal(sets.gather(1, label.long()[:, None])[:, 0], calibration.covered(prediction, label))
        else:
            low, high = calibration.intervals(prediction)
            inside = (label >= low[:, 0]) & (label <= high[:, 0])
            assert bool((inside == calibration.covered(prediction, label)).double().mean() > 0.99)
    mean, error = np.mean(covered), np.std(covered) / math.sqrt(len(covered))
    assert 0.9 - 2 * error < mean < 0.9 + 1 / 26 + 0.02 + 2 * error


def test_the_temperature_makes_probabilities_true():
    rng = np.random.default_rng(1)
    logits = torch.tensor(rng.normal(size=(6000, 1)))
    label = torch.tensor(rng.uniform(size=6000)) < (logits[:, 0]).sigmoid()
    calibration = Calibration(5 * logits, label.double(), np.arange(6000) % 60)
    assert calibration.temperature == pytest.approx(5, rel=0.1)
    before, plain = calibration.calibration_error(5 * logits, label), Calibration.__new__(Calibration)
    plain.temperature = 1.0
    assert before < 0.03 < 0.1 < plain.calibration_error(5 * logits, label)


def test_several_classes():
    rng = np.random.default_rng(2)
    logits = torch.tensor(rng.normal(size=(2000, 3))) * 2
    label = torch.distributions.Categorical(logits=logits).sample()
    calibration = Calibration(logits, label, np.arange(2000) % 40, 0.8)
    sets = calibration.sets(logits)
    attached = logits.clone().requires_grad_()  # as a network gives them outside no_grad
    assert torch.equal(calibration.covered(attached, label), calibration.covered(logits, label))
    assert sets.shape == (2000, 3) and 0.78 < calibration.covered(logits, label).double().mean() < 0.84
    assert calibration.temperature == pytest.approx(1, abs=0.15)


def test_labels_must_be_one_class_or_number():
    torch.manual_seed(0)
    logits, clusters = torch.randn(200, 4), [i // 10 for i in range(200)]
    label = logits.argmax(1)
    several = {"one-hot": torch.nn.functional.one_hot(label, 4), "several": (logits > 0).float(), "numbers": logits}
    for given in several.values():
        with pytest.raises(ValueError, match=r"must be one class or number a sample.*got \(200, 4\)"):
            Calibration(logits, given, clusters)
    with pytest.raises(ValueError, match="4 predictions of each sample, but its label is no class"):
        Calibration(logits, logits[:, 0], clusters)
    with pytest.raises(ValueError, match="classes must be whole numbers from 0 to 3"):
        Calibration(logits, label + 1, clusters)
    with pytest.raises(ValueError, match="an image's pixels are no samples"):
        Calibration(torch.randn(200, 2, 4, 4), label, clusters)
    as_loaded = Calibration(logits, label.float()[:, None], clusters)  # classes, as some loaders give them
    assert as_loaded.to_dict() == Calibration(logits, label, clusters).to_dict() and as_loaded.classification
    with pytest.raises(ValueError, match=r"got \(200, 4\)"):
        as_loaded.covered(logits, several["one-hot"])


def test_a_network_without_weights_is_calibrated():
    x = torch.randn(40, 1, generator=torch.Generator().manual_seed(0))
    batch = {"image": x, "label": (x[:, 0] > 0).float(), "cluster": [i // 2 for i in range(40)]}
    assert calibrate(torch.nn.Identity(), [batch]).num_clusters == 20


def test_a_network_is_calibrated_from_batches():
    torch.manual_seed(0)
    net = ARMED(DFNN(3, hidden_channels=()), 4, (3,), adversary=None).train()
    batches = [
        {"image": torch.randn(30, 3), "label": torch.randint(2, (30,)).float(), "site": [f"s{i}"] * 30}
        for i in range(12)
    ]
    calibration = calibrate(net, batches, cluster_key="site")
    assert calibration.num_clusters == 12 and calibration.classification and net.training
    other = calibrate(net, batches, cluster_key="site", predict=functools.partial(net, unknown="population"))
    assert other.quantile == calibration.quantile
    upside_down = calibrate(net, batches, cluster_key="site", predict=lambda x: -net(x))
    assert upside_down.quantile != calibration.quantile
    with pytest.raises(ValueError, match=r"4 held-out clusters are too few for a level of 0.9: it takes 9, or .* 0.80"):
        calibrate(net, batches[:4], cluster_key="site")
    with pytest.raises(ValueError, match="the loader gave no batch"):
        calibrate(net, [])
    unknown = [{**batch, "cluster": torch.full((30,), -1)} for batch in batches]
    with pytest.raises(ValueError, match="says not which cluster: name the key that does"):
        calibrate(net, unknown)
    with pytest.raises(ValueError, match="got 3 predictions, 2 labels and 3 clusters"):
        Calibration(torch.zeros(3, 1), torch.zeros(2), [0, 1, 2])


def test_a_clusters_own_labels_say_nothing_of_its_sets():
    logits, label, cluster = _clusters(np.random.default_rng(3), 15, binary=True)
    probability, sets = leave_one_cluster_out(logits, label, cluster)
    inside = torch.tensor(cluster == 4)
    others = Calibration(logits[~inside], label[~inside], cluster[cluster != 4], classification=True)
    assert torch.equal(sets[inside], others.sets(logits[inside]))
    assert torch.allclose(probability[inside], others.probabilities(logits[inside]))
    flipped = torch.where(inside, 1 - label, label)
    probability_then, sets_then = leave_one_cluster_out(logits, flipped, cluster)
    assert torch.equal(sets_then[inside], sets[inside]) and torch.equal(probability_then[inside], probability[inside])
    assert not torch.equal(probability_then[~inside], probability[~inside])
    with pytest.raises(ValueError, match="8 held-out clusters are too few"):
        few = cluster < 9
        leave_one_cluster_out(logits[few], label[few], cluster[few])


def test_sets_of_left_out_clusters_cover():
    rng = np.random.default_rng(4)
    shares = []
    for _ in range(40):
        logits, label, cluster = _clusters(rng, 30, binary=True)
        sets = leave_one_cluster_out(logits, label, cluster)[1]
        covered = sets.gather(1, label.long()[:, None])[:, 0].double().numpy()
        shares.append(np.mean([covered[cluster == j].mean() for j in range(30)]))
    assert 0.9 - 0.01 < np.mean(shares) < 0.9 + 1 / 30 + 0.01


def test_a_calibration_is_kept_as_json_can_hold_it():
    logits, label, cluster = _clusters(np.random.default_rng(5), 12, binary=True)
    calibration = Calibration(logits, label, cluster)
    again = Calibration.from_dict(json.loads(json.dumps(calibration.to_dict())))
    assert torch.equal(again.sets(logits), calibration.sets(logits)) and vars(again) == vars(calibration)
    assert again.calibration_error(logits, label) == calibration_error(calibration.probabilities(logits), label)
    with pytest.raises(ValueError, match="no proper quantile"):
        Calibration.from_dict({**calibration.to_dict(), "quantile": None})


def test_sets_are_told_in_words():
    sets = torch.tensor([[True, True], [False, True], [False, False]])
    columns = set_columns(torch.tensor([[0.5, 0.5], [0.1, 0.9], [0.75, 0.25]]), sets)
    assert columns["prediction_set"] == ["{0, 1}", "{1}", "{}"]
    assert columns["calibrated_probability"] == pytest.approx([0.5, 0.9, 0.25])


def _counts(name: int) -> dict:
    x = torch.randn(20, 1)
    return {"image": x, "label": torch.poisson((0.5 + 0.3 * x[:, 0] + 0.5 * torch.randn(1)).exp()), "site": [name] * 20}


def test_counts_are_predicted_as_counts():
    torch.manual_seed(0)
    net = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(net.weight, 0.3)
    torch.nn.init.constant_(net.bias, 0.5)
    held_out, new = [_counts(k) for k in range(60)], [_counts(k) for k in range(60)]
    calibration = calibrate(net, held_out, cluster_key="site", likelihood=PoissonLikelihoodLoss())
    again = Calibration.from_dict(json.loads(json.dumps(calibration.to_dict())))
    images, labels = (torch.cat([batch[key] for batch in new]) for key in ("image", "label"))
    low, high = again.intervals(net(images))
    assert low.min() == 0 and torch.allclose(high, net(images).exp() + calibration.quantile)
    inside = (low[:, 0] <= labels) & (labels <= high[:, 0])
    assert torch.equal(inside, again.covered(net(images), labels))
    assert 0.85 < inside.float().mean() < 0.96
    with pytest.warns(UserWarning, match="the labels look like counts"):
        calibrate(net, held_out, cluster_key="site")
