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

"""The record of a training, which travels in its model's file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import monai
import torch

import monai_armed
from monai_armed.bundle.fingerprint import fingerprint
from monai_armed.data.held_out import provenance

__all__ = ["recorded_subjects", "same_clusters", "training_record", "versions"]


def training_record(
    partitions: Mapping[str, Any],
    clusters: Sequence[str],
    features: Sequence[Any] | None = None,
) -> dict[str, Any]:
    """
    Record of the training whose config is being read.

    Args:
        partitions: of a study, as :py:func:`monai_armed.data.held_out.provenance` wants them.
        clusters: names of the seen clusters in the order of their index.
        features: what the network's inputs are, such as the columns of
            :py:class:`monai_armed.transforms.EncodeRow`.

    Returns:
        ``"provenance"``, what the model is trained and validated on, see
        :py:func:`monai_armed.data.held_out.provenance`; ``"clusters"``; ``"features"``;
        ``"fingerprint"``, see :py:func:`monai_armed.bundle.fingerprint`; and ``"versions"`` of what trains it.
    """
    origin = provenance(partitions)
    return {
        "provenance": origin,
        "clusters": [str(name) for name in clusters],
        "features": None if features is None else list(features),
        "fingerprint": fingerprint(origin),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Of what trains a model, or predicts with it."""
    return {"monai_armed": monai_armed.__version__, "monai": monai.__version__, "torch": str(torch.__version__)}


def recorded_subjects(record: Mapping[str, Any]) -> list[str]:
    """Names of the subjects that a model is trained on, in the order of their index."""
    return sorted({subject for _, subject in record["provenance"]["train"]})


def same_clusters(record: Mapping[str, Any], found: Sequence[str]) -> list[str]:
    """
    A model's clusters, where the data are indexed by the same: an index means another cluster otherwise.

    Args:
        record: the model's.
        found: names of the clusters of the data in the order of their index.

    Raises:
        ValueError: when they differ.
    """
    clusters = record["clusters"]
    if clusters != [str(name) for name in found]:
        raise ValueError(
            f"the model was trained on {len(clusters)} sites, {clusters[:3]} ..., but of these data {len(found)} are "
            f"seen, {list(found)[:3]} ...: evaluate it on the data and with the number of seen sites of its training."
        )
    return clusters
