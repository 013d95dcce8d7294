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

"""How far the latents of cells separate by batch."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from monai_armed.metrics.audit import LayerFeatures, audit_features
from monai_armed.metrics.cluster_separation import (
    centre_by_cluster,
    cluster_separation,
    effective_dimension,
    within_class_accuracy,
)
from monai_armed.studies.cells.outputs import CellOutputs

__all__ = ["batch_probes", "fresh_auroc", "latent_separation"]


def latent_separation(train: CellOutputs, test: CellOutputs) -> dict[str, float]:
    """
    How far the latents of held-out cells separate by batch, and how well fresh classifiers name it, within class; and
    what says whether they tell anything at all: their dimensions, and the error of one mean image for all cells.
    """
    z, cluster = test.latents(), test.clusters()
    mean_image = train.images.mean(axis=0)
    found = {
        "effective_dimension": effective_dimension(z),
        "mean_image_error": float(np.square(test.images - mean_image).mean()),
    }
    try:
        measured = found | cluster_separation(z, cluster)
    except ValueError as error:
        print(f"the separation of the latents by batch is not measured: {error}")
        return found | batch_probes(train, test)
    centred = cluster_separation(centre_by_cluster(train.latents(), train.clusters(), z, cluster), cluster)
    measured["davies_bouldin_centred"] = centred["davies_bouldin"]
    measured["calinski_harabasz_centred"] = centred["calinski_harabasz"]
    return measured | batch_probes(train, test)


def _labelled(part: CellOutputs) -> LayerFeatures:
    """Latents of the cells with a label."""
    label = part.cells["label"].to_numpy()
    known = label >= 0
    return LayerFeatures({"latent": part.latents()[known]}, part.clusters()[known], label[known])


def batch_probes(train: CellOutputs, test: CellOutputs, kind: str = "probe") -> dict[str, float]:
    """
    How well fresh classifiers name the batch from the latents, within class, and chance; nothing where too few cells
    have a label.

    Args:
        train: cells that they learn from.
        test: cells that they are scored on.
        kind: what the figures' names start with.
    """
    learn, held_out = (_labelled(part) for part in (train, test))
    try:
        table = within_class_accuracy(audit_features(learn, held_out))
    except ValueError:  # too few labelled cells
        return {}
    found = dict(zip(kind + "_" + table["probe"], table["balanced_accuracy"]))
    return found | {f"{kind}_chance": float(table["chance"].mean())}


def fresh_auroc(train: CellOutputs, other: CellOutputs) -> float:
    """
    AUROC by cell of the phenotype that a fresh linear classifier reads from the fixed latents: what they hold of it,
    whatever the network's own classifier makes of them.

    Args:
        train: cells that it learns from.
        other: cells that it is scored on.

    Returns:
        the AUROC, NaN where there are not two cells of each class in both.
    """
    learn, held_out = (_labelled(part) for part in (train, other))
    if any(np.bincount(np.asarray(part.label, int), minlength=2).min() < 2 for part in (learn, held_out)):
        return float("nan")
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(learn.layers["latent"], learn.label)
    return float(roc_auc_score(held_out.label, model.decision_function(held_out.layers["latent"])))
