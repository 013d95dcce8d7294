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


"""The audit: how much a fresh classifier still learns of the cluster from frozen features."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from monai.networks.utils import eval_mode
from monai.utils import ensure_tuple
from scipy.stats import false_discovery_control
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..engines.prepare_batch import PrepareBatchCluster
from ..networks.layers.channel_dims import channel_dims, check_rows, pooled
from ..networks.layers.dry_run import default_feature_layers, dry_run, observe
from ..networks.layers.feature_layers import record_layers
from ..networks.nets.armed import ARMED
from ..utils.parallel import unwrap

__all__ = ["LayerFeatures", "audit_features", "collect_features"]

NUM_PERMUTATIONS = 999
MLP_EPOCHS = 100
MOST_CLASSES = 20  # whole numbers of more values are no classes, but ages or counts


@dataclass
class LayerFeatures:
    """
    Features of the same samples at several layers, each (N, F), with the samples' cluster (N,) and class (N,), None
    where there is not one class for each sample, such as for ages in years: whole numbers of more than 20 values.
    """

    layers: dict[str, np.ndarray]
    cluster: np.ndarray
    label: np.ndarray | None = None


def collect_features(
    network: torch.nn.Module,
    loader: Iterable[Mapping],
    layers: Sequence[str] | None = None,
    prepare_batch: PrepareBatchCluster | None = None,
    device: str | torch.device = "cpu",
) -> LayerFeatures:
    """
    Outputs of a network's layers over a data set, in evaluation mode. Of images the mean and the s.d. over space of
    every channel are kept, in which the effect of a scanner shows.

    Args:
        network: any network; of an :py:class:`monai_armed.networks.nets.ARMED` network the wrapped one, with what its
            erasers leave of their layers: what its fixed effects are made of.
        loader: gives batches, dicts.
        layers: names of layers of the (wrapped) network; by default those that ARMED's adversary sees, or where it has
            none, would see, and those that are erased.
        prepare_batch: takes input, label and cluster out of a batch; by default ``PrepareBatchCluster()``.
        device: where the network is.

    Raises:
        ValueError: when the loader is empty, or a layer does not exist or gives no tensor.
    """
    network, head, erasers = unwrap(network), None, {}
    if isinstance(network, ARMED):
        layers = network.feature_layers if layers is None and network.feature_layers else layers
        erasers = dict(zip(network.erased_layers, network.erasers))
        network, head = network.network, network.head
    prepare = PrepareBatchCluster() if prepare_batch is None else prepare_batch
    collected: dict[str, list[np.ndarray]] = {}
    clusters, labels, dims = [], [], None
    with torch.no_grad(), eval_mode(network, *erasers.values()):
        for batch in loader:
            x, targets, _, _ = prepare(batch, device)
            if layers is None:
                dry = dry_run(network, x.shape[1:])
                found = {*default_feature_layers(network, dry), *erasers}  # an erased layer may hold the one before it
                layers = sorted(found, key=list(dry.record.outputs).index)
            layers = ensure_tuple(layers)
            dims = layer_dims(network, x, layers, head) if dims is None else dims
            copied = {(kind, name) for kind in ("input", "output") for name in layers}
            with record_layers(network, layers, layers, copied, erasers) as record:
                network(x)
            for name in layers:
                kept = record.inputs if name == head else record.outputs  # the last layer stands for what goes into it
                if name not in kept:
                    raise ValueError(f"layer {name!r} gives no tensor when the network runs: it cannot be audited.")
                check_rows(kept[name], len(x), name)
                collected.setdefault(name, []).append(pooled(kept[name].float(), dims[name] or 1).cpu().numpy())
            clusters.append(targets["cluster"].cpu().numpy().reshape(-1))
            labels.append(targets["label"].cpu().numpy().reshape(len(x), -1))
    if not clusters:
        raise ValueError("the loader gave no batch: there is nothing to audit.")
    features = {name: np.concatenate(parts) for name, parts in collected.items()}
    label = np.concatenate(labels)
    whole = label.shape[1] == 1 and bool((label == label.round()).all())
    is_class = whole and len(np.unique(label)) <= MOST_CLASSES
    return LayerFeatures(features, np.concatenate(clusters), label[:, 0] if is_class else None)


def layer_dims(
    network: torch.nn.Module,
    x: torch.Tensor,
    layers: Sequence[str],
    head: Any = None,
    part: torch.nn.Module | None = None,
) -> dict[str, int | None]:
    """
    Dimension of each layer's channels, None where it cannot be told.

    Args:
        network: called with images.
        x: they, of which two are enough.
        layers: names; of those that give no tensor nothing is said.
        head: name of the one that stands for what goes into it.
        part: a module in the network whose layers are meant; by default itself.
    """
    dry = observe(network, x[:2], part)
    known = {name: (dry.record.inputs if name == head else dry.record.outputs).get(name) for name in layers}
    tensors = [(name, tensor) for name, tensor in known.items() if tensor is not None]
    return dict(zip((name for name, _ in tensors), channel_dims(network if part is None else part, dry, tensors)))


def audit_features(train: LayerFeatures, test: LayerFeatures, seed: int = 0) -> pd.DataFrame:
    """
    Train fresh classifiers, logistic regression and a small multilayer perceptron, to name the cluster from frozen
    features, and test them on held-out samples of the same clusters. That the network's own adversary is at chance
    says little; that these are, says more (a lower bound of what is left, since other classifiers may find more).

    Within one class the class balance of the clusters plays no part: features that tell the class tell the cluster
    where the classes are not spread evenly, which is no fault.

    Args:
        train: features that the classifiers learn from; samples of unknown cluster (-1) are left out.
        test: features of samples that neither the network nor the classifiers have learned from.
        seed: seed of the classifiers and the permutations.

    Returns:
        a row for each layer, classifier (``probe``) and ``class`` (``"all"`` or one of the labels): number of test
        ``samples`` and ``clusters``, ``balanced_accuracy``, that at ``chance``, and of the null distribution under
        permutation of the test samples' clusters the 95th percentile, ``null_high``, and the p-value ``p``. A table has
        many tests: ``p_adjusted`` is p after Benjamini and Hochberg's correction over all its rows, below which the
        expected share of false findings is kept.

    Raises:
        ValueError: when the layers differ, or a feature is not finite.
    """
    if list(train.layers) != list(test.layers):
        raise ValueError(f"train has the layers {list(train.layers)}, test has {list(test.layers)}.")
    rows = []
    for layer, features in train.layers.items():
        for x in (features, test.layers[layer]):
            if not np.isfinite(x).all():
                raise ValueError(f"the features of layer {layer!r} are not all finite: did the training diverge?")
        for name, learn, held_out in _parts(train, test):
            data = features[learn], train.cluster[learn], test.layers[layer][held_out], test.cluster[held_out]
            rows += [{"layer": layer, "class": name, **row} for row in _audit(*data, seed)]
    columns = ["layer", "probe", "class", "samples", "clusters", "balanced_accuracy", "chance", "null_high", "p"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(p_adjusted=false_discovery_control(table["p"]) if rows else [])


def _parts(train: LayerFeatures, test: LayerFeatures) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, training samples and test samples of all classes together and of each, where there are two clusters."""
    samples = [("all", train.cluster >= 0, test.cluster >= 0)]
    if train.label is not None and test.label is not None:
        for label in np.unique(test.label):
            of_class = [(part.label == label) & (part.cluster >= 0) for part in (train, test)]
            samples.append((f"{label:g}", of_class[0], of_class[1]))
    for name, learn, held_out in samples:
        held_out = held_out & np.isin(test.cluster, train.cluster[learn])
        if len(np.unique(test.cluster[held_out])) > 1:
            yield name, learn, held_out


def _audit(x: np.ndarray, cluster: np.ndarray, test_x: np.ndarray, test_cluster: np.ndarray, seed: int) -> list[dict]:
    rng = np.random.default_rng(seed)
    probes = {
        "logistic": LogisticRegression(max_iter=1000),
        "mlp": MLPClassifier((64,), alpha=1e-2, max_iter=MLP_EPOCHS, random_state=seed),
    }
    chosen = _balanced(cluster, rng)
    num_clusters, inverse = len(np.unique(test_cluster)), np.unique(test_cluster, return_inverse=True)[1]
    weight = 1 / np.bincount(inverse)[inverse] / num_clusters  # so that a sum over samples is the mean of recalls
    orders = [rng.permutation(len(test_cluster)) for _ in range(NUM_PERMUTATIONS)]
    rows = []
    for name, probe in probes.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is part of the definition
            predicted = make_pipeline(StandardScaler(), probe).fit(x[chosen], cluster[chosen]).predict(test_x)
        accuracy = float((weight * (predicted == test_cluster)).sum())
        null = np.array([weight[order] @ (predicted == test_cluster[order]) for order in orders])
        row = {"probe": name, "samples": len(test_cluster), "clusters": num_clusters, "balanced_accuracy": accuracy}
        row.update(chance=float(null.mean()), null_high=float(np.quantile(null, 0.95)))
        rows.append({**row, "p": float((1 + (null >= accuracy - 1e-12).sum()) / (1 + NUM_PERMUTATIONS))})
    return rows


def _balanced(cluster: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Samples with those of small clusters repeated until all clusters are of one size."""
    largest = np.unique(cluster, return_counts=True)[1].max()
    groups = [np.flatnonzero(cluster == c) for c in np.unique(cluster)]
    return rng.permutation(np.concatenate([np.resize(rng.permutation(g), largest) for g in groups]))
