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
"""What erasing a layer would give: the leak and the AUROC before and after, without training."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from ..networks.erasure import ClusterEraser, FeatureSums, fit_eraser
from .leaks import attribute_leaks, one_a_subject
from .probes import halves
from .readings import Readings

__all__ = ["Told", "erase_layers", "layer_eraser", "within_site_auroc"]

Rerun = Callable[[str, ClusterEraser, np.ndarray], np.ndarray]
"""Scores of some samples, by their indices, with the output of a layer changed by an eraser."""
COLUMNS = ["layer", "channels", "erased", "samples", "leak", "leak_erased", "chance_high", "p_erased"]
AUROCS = ["auroc", "auroc_erased", "within_site", "within_site_erased"]


@dataclass(frozen=True)
class Told:
    """Label (N,), site (N,) and subject (N,) of the samples; ``classes`` says whether the label is one, or all 0."""

    label: np.ndarray
    site: np.ndarray
    subject: np.ndarray
    classes: bool = True


def layer_eraser(readings: Readings, layer: str, told: Told, part: np.ndarray) -> ClusterEraser:
    """
    The eraser of a layer's channels (:py:func:`~monai_armed.networks.erasure.fit_eraser`, within class), fitted to
    features that are there already. The label's covariance is not kept: the network behind it stays as it is.

    Args:
        readings: with the layer's features.
        layer: its name.
        told: of the samples.
        part: indices of the samples that it is fitted to.

    Raises:
        ValueError: when no two sites of a class are among them, or the features do not vary.
    """
    sites, codes = np.unique(told.site, return_inverse=True)
    channels = readings.channels[layer]
    sums = FeatureSums(channels, len(sites), num_classes=int(told.label.max()) + 1 if told.classes else 0)
    if not _vary(readings, layer):
        raise ValueError(
            f"the features of layer {layer!r} do not vary, as the means of attention weights do not: name another one."
        )
    features = torch.as_tensor(readings.layers[layer][part, :channels])
    sums.update(features, torch.as_tensor(codes[part]), torch.as_tensor(told.label[part]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of more directions than half of the channels
        eraser = fit_eraser(sums, keep_label=False)
    eraser.channel_dim = -1 if layer in readings.tokens else None
    return eraser.float()


def _vary(readings: Readings, layer: str) -> bool:
    """Whether what an eraser of the layer would act on differs between samples by more than rounding."""
    x = readings.layers.get(layer, np.zeros((1, 1)))[:, : readings.channels[layer]]
    return bool(np.ptp(x, axis=0).max() > 1e-5 * abs(x).max())


def erase_layers(readings: Readings, told: Told, rerun: Rerun, seed: int = 0) -> pd.DataFrame:
    """
    Each layer in turn is erased by what one half of the subjects tells, and the network is run with it on the other.

    Args:
        readings: of all samples.
        told: of all samples.
        rerun: runs the network.
        seed: seed of the halves and the permutations.

    Returns:
        a row a layer: ``layer``, ``channels``, number of directions ``erased``, ``samples`` that it is tried on, the
        ``leak`` of the site among class 0 before and after, the 95th percentile of chance, the p-value of what is left,
        the ``auroc`` of all samples and that of pairs of images of one site, before and after (NaN of masks).
    """
    fit, test = halves(told.label, told.site, told.subject, seed)
    tried = Told(told.label[test], told.site[test], told.subject[test], told.classes)
    before = _judged(readings.score[test], tried, seed)
    rows = []
    for layer in (name for name in readings.channels if _vary(readings, name)):
        eraser = layer_eraser(readings, layer, told, fit)
        rank = int(eraser.rank)
        after = _judged(rerun(layer, eraser, test), tried, seed) if rank else before
        row = {"layer": layer, "channels": readings.channels[layer], "erased": rank, "samples": len(test)}
        row |= {name: before[name] for name in ("leak", *AUROCS[::2])} | {"chance_high": before["chance_high"]}
        row["p_erased"] = after["p"]
        rows.append(row | {f"{name}_erased": after[name] for name in ("leak", *AUROCS[::2])})
    return pd.DataFrame(rows, columns=COLUMNS + AUROCS)


def _judged(score: np.ndarray, told: Told, seed: int) -> dict[str, float]:
    alike = one_a_subject(told.subject, told.label, seed)
    alike = alike[told.label[alike] == 0]
    leaks, _ = attribute_leaks(score[alike], pd.DataFrame({"site": told.site[alike]}), seed)
    found = {"leak": np.nan, "chance_high": np.nan, "p": np.nan, "auroc": np.nan, "within_site": np.nan}
    if len(leaks):
        found |= leaks[["leak", "chance_high", "p"]].iloc[0].to_dict()
    if told.classes and len(np.unique(told.label)) > 1:
        found |= {"auroc": float(roc_auc_score(told.label, score))}
        found |= {"within_site": within_site_auroc(told.label, score, told.site)}
    return found


def within_site_auroc(label: np.ndarray, score: np.ndarray, site: np.ndarray) -> float:
    """
    AUROC over the pairs of two images of one site, in which the site tells nothing.

    Args:
        label: class (N,), 0 or 1.
        score: (N,).
        site: name (N,).

    Returns:
        between 0 and 1; NaN where no site has both classes.
    """
    right = pairs = 0.0
    for name in np.unique(site):
        y, s = label[site == name], score[site == name]
        if number := float(y.sum() * (1 - y).sum()):
            right, pairs = right + number * roc_auc_score(y, s), pairs + number
    return right / pairs if pairs else float("nan")
