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

"""Samples drawn so that the cluster does not tell the class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import WeightedRandomSampler

__all__ = ["balanced_sampler"]


def balanced_sampler(
    datalist: Sequence[Mapping[str, Any]], cluster_key: str, label_key: str = "label"
) -> WeightedRandomSampler:
    """
    A sampler for a ``DataLoader`` with which each cluster keeps its share of the samples and has as many of one class
    as of another, of those that it has: where clusters differ in their share of patients, they do not any more.

    Args:
        datalist: dicts with the cluster and the label of each training sample, in the order of the data set.
        cluster_key: key of the cluster, a name or an index.
        label_key: key of the label, a class.

    Raises:
        ValueError: when there are no samples, or one lacks a key.

    Example:
        >>> DataLoader(dataset, batch_size=16, sampler=balanced_sampler(datalist, "site"))
    """
    if not datalist:
        raise ValueError("there are no samples to balance: datalist is empty.")
    for key in (cluster_key, label_key):
        if not all(key in item for item in datalist):
            raise ValueError(f"samples have no {key!r} to balance by, their keys are {list(datalist[0])}.")
    cells = [(item[cluster_key], int(np.ravel(item[label_key])[0])) for item in datalist]
    of_cell, of_cluster = Counter(cells), Counter(cluster for cluster, _ in cells)
    classes = Counter(cluster for cluster, _ in of_cell)
    weights = [of_cluster[cell[0]] / classes[cell[0]] / of_cell[cell] for cell in cells]
    return WeightedRandomSampler(weights, len(cells))
