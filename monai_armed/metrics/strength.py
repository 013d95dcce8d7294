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

"""Choosing how strongly to press for invariance."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..networks.erasure.feature_sums import FeatureSums
from .audit import LayerFeatures
from .linear_probe import linear_probe_auroc

__all__ = ["choose_strength", "layer_leaks"]


def choose_strength(score: ArrayLike, standard_error: ArrayLike, leak: ArrayLike, chance: float = 0.5) -> int:
    """
    Of trainings that press for invariance more and less, take the one whose features tell least of the cluster, of
    those that predict as well as the best one as far as the validation can say: the lowest leak within one standard
    error of the best score. So the strength of an adversary, or what is erased, needs no eye to choose it, and a
    training that has lost its task is never taken. The one standard error rule is that of Breiman et al. (1984,
    section 3.4.3), with the leak in place of the size of a tree.

    Args:
        score: of each training, higher is better, such as the AUROC on validation samples, (N,); NaN: it failed.
        standard_error: of the score, (N,), such as DeLong's
            (:py:func:`monai_armed.metrics.comparison.delong_interval`).
        leak: how well the cluster is told on samples that nothing was fitted to, (N,), such as
            :py:func:`layer_leaks` of the last layer.
        chance: leak where nothing is told. What is below it counts as chance: it is no better, and among those whose
            leak is the same the best score is taken.

    Returns:
        the index of the training.

    Raises:
        ValueError: when there are not as many numbers of each, a standard error is negative, or no training has all.

    Example:
        >>> choose_strength([0.91, 0.90, 0.70], [0.02, 0.02, 0.03], leak=[0.95, 0.60, 0.50])
        1
    """
    scores, errors, leaks = (np.asarray(values, dtype=float) for values in (score, standard_error, leak))
    if scores.ndim != 1 or not scores.shape == errors.shape == leaks.shape:
        raise ValueError(
            "score, standard_error and leak need one number for each training, got shapes "
            f"{scores.shape}, {errors.shape} and {leaks.shape}."
        )
    if (errors < 0).any():
        raise ValueError(f"standard_error must not be negative, got {errors.min()}.")
    known = np.isfinite(scores) & np.isfinite(errors) & np.isfinite(leaks)
    if not known.any():
        raise ValueError("no training has a score, its standard error and a leak that are finite: all have failed.")
    best = np.flatnonzero(known)[scores[known].argmax()]
    good = np.flatnonzero(known & (scores >= scores[best] - errors[best]))
    return int(min(good, key=lambda i: (max(leaks[i], chance), -scores[i])))


def layer_leaks(learn: LayerFeatures, held_out: LayerFeatures) -> dict[str, float]:
    """
    How well a linear discriminant tells two clusters apart from each layer's features of held-out samples, within each
    class where there are classes: :py:func:`monai_armed.metrics.linear_probe.linear_probe_auroc`, in closed form.

    Args:
        learn: features of the training samples, from :py:func:`monai_armed.metrics.audit.collect_features`.
        held_out: those of others, of the same clusters.

    Returns:
        the AUROC by the layer's name; 0.5: not at all.

    Raises:
        ValueError: when the two are of different layers, or no two clusters (of a class) are in both.
    """
    if set(learn.layers) != set(held_out.layers):
        raise ValueError(f"learn has the layers {list(learn.layers)}, held_out {list(held_out.layers)}: give the same.")
    labels = [part.label for part in (learn, held_out) if part.label is not None]
    classes = max(int(label.max()) for label in labels) + 1 if len(labels) == 2 else 0
    clusters = max(int(part.cluster.max()) for part in (learn, held_out)) + 1

    def sums(part: LayerFeatures, layer: str) -> FeatureSums:
        features = torch.as_tensor(part.layers[layer])
        found = FeatureSums(features.shape[1], clusters, classes)
        label = torch.as_tensor(part.label).long() if classes else None
        found.update(features, torch.as_tensor(part.cluster), label)
        return found

    return {layer: linear_probe_auroc(sums(learn, layer), sums(held_out, layer)) for layer in learn.layers}
