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
import torch
from monai.data import DataLoader, Dataset
from sklearn.metrics import balanced_accuracy_score

from monai_armed.metrics.audit import LayerFeatures, _balanced, audit_features, collect_features
from monai_armed.networks import ARMED, CNN, DFNN
from monai_armed.networks.erasure import ClusterEraser

CLUSTERS = 4


def features(seed: int, n: int, clustered: float, by_class: float = 0.0) -> LayerFeatures:
    """Features of which the first hold the cluster (``clustered``) or the class; class balance differs by cluster."""
    rng = np.random.default_rng(seed)
    cluster = rng.choice(CLUSTERS, n, p=[0.4, 0.3, 0.2, 0.1])
    label = (rng.random(n) < np.array([0.1, 0.3, 0.7, 0.9])[cluster]).astype(int)
    x = rng.normal(size=(n, 6))
    x[:, 0] += clustered * (cluster - 1.5)
    x[:, 1] += by_class * label
    return LayerFeatures({"layer": x}, cluster, label)


def audited(**kwargs):
    table = audit_features(features(0, 400, **kwargs), features(1, 300, **kwargs))
    assert set(table["class"]) == {"all", "0", "1"} and set(table["probe"]) == {"logistic", "mlp"}
    np.testing.assert_allclose(table["chance"], 1 / CLUSTERS, atol=0.02)
    return table.set_index(["class", "probe"])


def test_features_that_hold_the_cluster_are_found_out():
    table = audited(clustered=2.0)
    assert (table["p"] < 0.01).all() and (table["balanced_accuracy"] > table["null_high"]).all()
    assert table.loc["all", "balanced_accuracy"].min() > 0.5


def test_features_without_the_cluster_are_at_chance():
    table = audited(clustered=0.0)
    assert (table["p"] > 0.01).all()
    assert (table["balanced_accuracy"] - table["chance"]).abs().max() < 0.12


def test_features_that_hold_the_class_alone_tell_the_cluster_only_between_classes():
    table = audited(clustered=0.0, by_class=4.0)
    assert (table.loc["all", "p"] < 0.01).all()
    assert (table.loc[["0", "1"], "p"] > 0.01).all()


def test_p_values_are_uniform_where_there_is_nothing():
    p = [audit_features(features(2 * s, 60, 0), features(2 * s + 1, 60, 0), s)["p"].iloc[0] for s in range(20)]
    assert 0.25 < np.mean(p) < 0.75


def test_adjusted_p_values_are_those_of_benjamini_and_hochberg():
    table = audit_features(features(0, 200, 0.4), features(1, 200, 0.4))
    p = np.sort(table["p"])
    expected = np.minimum.accumulate((p * len(p) / np.arange(1, len(p) + 1))[::-1])[::-1].clip(max=1)
    np.testing.assert_allclose(np.sort(table["p_adjusted"]), expected)
    assert (table["p_adjusted"] >= table["p"]).all() and len(np.unique(p)) > 2


def test_balanced_accuracy_is_that_of_scikit_learn(monkeypatch):
    train, test = features(0, 200, 1.0), features(1, 200, 1.0)
    said = []
    monkeypatch.setattr(
        "monai_armed.metrics.audit.LogisticRegression.predict",
        lambda self, x: said.append(np.arange(len(x)) % CLUSTERS) or said[-1],
    )
    found = audit_features(train, test).query("probe == 'logistic' and `class` == 'all'")["balanced_accuracy"].item()
    assert found == pytest.approx(balanced_accuracy_score(test.cluster, said[0]))
    cluster = np.array([0, 0, 0, 2, 5, 5])
    chosen = _balanced(cluster, np.random.default_rng(0))
    assert np.bincount(cluster[chosen]).tolist() == [3, 0, 3, 0, 0, 3] and set(chosen) == set(range(6))


def test_unknown_and_new_clusters_are_left_out():
    train, test = features(0, 200, 1.0), features(1, 100, 1.0)
    train.cluster[train.cluster == 3] = -1
    table = audit_features(train, test)
    everything = table[table["class"] == "all"]
    assert (everything["clusters"] == 3).all() and (everything["samples"] == (test.cluster < 3).sum()).all()
    no_label = LayerFeatures(test.layers, test.cluster)
    assert set(audit_features(train, no_label)["class"]) == {"all"}


def batches(images: torch.Tensor, label: torch.Tensor) -> DataLoader:
    items = [{"image": x, "label": y, "cluster": i % 3} for i, (x, y) in enumerate(zip(images, label))]
    return DataLoader(Dataset(items), batch_size=4)


def test_features_of_a_table_network_are_the_layers_outputs():
    torch.manual_seed(0)
    x = torch.randn(10, 5)
    net = ARMED(DFNN(5, 1, (4, 3)), 3, (5,), adversary="dense")
    loader = batches(x, torch.arange(10) % 2)
    found = collect_features(net, loader)
    assert list(found.layers) == list(net.feature_layers) and net.network.training
    with torch.no_grad():
        expected = net.network.hidden(x)
    np.testing.assert_allclose(found.layers[net.feature_layers[-1]], expected, rtol=1e-5)
    assert found.cluster.tolist() == [i % 3 for i in range(10)] and found.label.tolist() == [i % 2 for i in range(10)]
    conventional = collect_features(net.network, loader)  # the same layers are found in a network without adversary
    assert list(conventional.layers) == list(net.feature_layers)
    assert collect_features(net, batches(x, torch.rand(10))).label is None  # a regression has no classes
    years = collect_features(net, batches(torch.randn(40, 5), torch.arange(40.0, 80)))
    assert years.label is None  # nor one whose numbers are whole


def test_features_of_an_erased_layer_are_what_is_left_of_it():
    torch.manual_seed(0)
    x = torch.randn(10, 5)
    net = ARMED(DFNN(5, 1, (4, 3)), 3, (5,), adversary=None, erasers={"hidden.0": ClusterEraser(4)})
    torch.nn.init.normal_(net.erasers[0].matrix)
    found = collect_features(net, batches(x, torch.arange(10) % 2), ["hidden.0", "hidden.1"])
    with torch.no_grad():
        first = net.erasers[0](net.network.hidden[0](x))
        np.testing.assert_allclose(found.layers["hidden.0"], first, rtol=1e-5)
        np.testing.assert_allclose(found.layers["hidden.1"], net.network.hidden[1:](first), rtol=1e-5)


def test_without_an_adversary_the_last_layer_is_what_the_eraser_has_left():
    """The erased layer holds the one that is found by default, whose output is not erased yet."""
    torch.manual_seed(0)
    x = torch.randn(10, 1, 16, 16)
    network = CNN((1, 16, 16), channels=(2, 3), dense_channels=4)
    net = ARMED(network, 3, (1, 16, 16), adversary=None, erasers={"dense": ClusterEraser(4)})
    torch.nn.init.normal_(net.erasers[0].matrix)
    found = collect_features(net, batches(x, torch.arange(10) % 2))
    assert list(found.layers)[-2:] == ["dense.1", "dense"]
    np.testing.assert_allclose(found.layers["dense"], net.erasers[0](torch.tensor(found.layers["dense.1"])), rtol=1e-4)


def test_features_of_images_are_statistics_over_space():
    torch.manual_seed(0)
    net, x = CNN((1, 32, 32), channels=(4, 8)), torch.randn(6, 1, 32, 32)
    first = dict(net.named_modules())["blocks.0"]
    found = collect_features(net, batches(x, torch.zeros(6)), ["blocks.0"])
    with torch.no_grad():
        out = first.eval()(x).flatten(2)
    expected = torch.cat([out.mean(-1), out.std(-1, correction=0)], 1)
    np.testing.assert_allclose(found.layers["blocks.0"], expected, rtol=1e-4, atol=1e-5)


def test_bad_input():
    good = features(0, 50, 0)
    with pytest.raises(ValueError, match="there is nothing to audit"):
        collect_features(DFNN(5), [])
    with pytest.raises(ValueError, match="has no layer 'hiden'"):
        collect_features(DFNN(5), batches(torch.randn(4, 5), torch.zeros(4)), ["hiden"])
    with pytest.raises(ValueError, match=r"train has the layers \['layer'\], test has \['other'\]"):
        audit_features(good, LayerFeatures({"other": good.layers["layer"]}, good.cluster, good.label))
    bad = features(1, 50, 0)
    bad.layers["layer"][0, 0] = np.nan
    with pytest.raises(ValueError, match="not all finite"):
        audit_features(good, bad)
