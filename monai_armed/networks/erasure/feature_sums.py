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

"""What an eraser is fitted from: counts, sums and second moments of features, which add up over batches and places."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed

__all__ = ["FeatureSums"]


class FeatureSums:
    """
    Sums of a layer's features over any number of batches, in double precision: for each cluster (and class) how many
    samples there are and the sum of their features, and the second moments of all together. Memory is
    O(C K D + D^2), whatever the number of samples. Sums add up: several processes, or hospitals that send each other
    nothing but these tensors, come to the same as one that has all samples.

    What the features may tell is the label: its class (``num_classes``), or continuous values (``num_values``), which
    are kept as further columns beside the features. A sample of which the cluster or the label is not known takes part
    in the second moments alone: it says how features vary, not how clusters differ.

    Args:
        num_features: number of features, or channels, D.
        num_clusters: number of clusters C.
        num_classes: number of classes K of a label that is a class; 0 for none.
        num_values: number of values P of a label that is continuous; 0 for none.
        device: where the sums are; it needs double precision.

    Raises:
        ValueError: when a number is out of its range, or the label is to be both a class and continuous.

    Example:
        >>> sums = FeatureSums(32, num_clusters=5, num_classes=2)
        >>> sums.update(torch.rand(8, 32), torch.arange(8) % 5, torch.arange(8) % 2)
        >>> {name: tuple(tensor.shape) for name, tensor in sums.state_dict().items()}
        {'count': (6, 3), 'total': (6, 3, 32), 'second': (32, 32)}
    """

    def __init__(
        self,
        num_features: int,
        num_clusters: int,
        num_classes: int = 0,
        num_values: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        for name, number, least in (
            ("num_features", num_features, 1),
            ("num_clusters", num_clusters, 1),
            ("num_classes", num_classes, 0),
            ("num_values", num_values, 0),
        ):
            if number < least:
                raise ValueError(f"{name} must be at least {least}, got {number}.")
        if num_classes and num_values:
            raise ValueError(
                f"a label is a class or continuous: num_classes = {num_classes} and num_values = {num_values} "
                "cannot both be given."
            )
        self.num_features, self.num_clusters = num_features, num_clusters
        self.num_classes, self.num_values = num_classes, num_values
        cells, columns = (num_clusters + 1, max(num_classes, 1) + 1), num_features + num_values
        # the last row is of samples whose cluster is not known, the last column of those whose label is not
        self.count = torch.zeros(cells, dtype=torch.double, device=device)
        self.total = torch.zeros(*cells, columns, dtype=torch.double, device=device)
        self.second = torch.zeros(columns, columns, dtype=torch.double, device=device)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The sums: ``count`` (C + 1, K + 1), ``total`` (C + 1, K + 1, D + P) and ``second`` (D + P, D + P)."""
        return {"count": self.count, "total": self.total, "second": self.second}

    @torch.no_grad()
    def update(self, features: torch.Tensor, cluster: torch.Tensor, label: torch.Tensor | None = None) -> None:
        """
        Args:
            features: (B, D); of maps (B, D, *spatial) the mean over space is one sample.
            cluster: index (B,), -1 where not known.
            label: class (B,), -1 where not known; or continuous, (B,) or (B, P), NaN where not known. None: not known
                of any sample.

        Raises:
            ValueError: when the shapes do not go together, or an index is out of its range.
        """
        device = self.count.device
        # first to the device: that of the features may have no double precision
        columns = features.detach().flatten(2).mean(-1) if features.ndim > 2 else features.detach()
        columns, cluster = columns.to(device).double(), _index(cluster, self.num_clusters, "cluster").to(device)
        if columns.shape != (len(cluster), self.num_features):
            raise ValueError(
                f"features must be ({len(cluster)}, {self.num_features}), as many samples as there are clusters, or "
                f"maps with {self.num_features} channels, got {tuple(features.shape)}."
            )
        row = torch.full_like(cluster, -1) if self.num_classes or self.num_values else torch.zeros_like(cluster)
        if self.num_values:
            values = columns.new_full((len(cluster), self.num_values), torch.nan) if label is None else label
            values = values.detach().to(device).double().reshape(len(cluster), -1)
            if values.shape[1] != self.num_values:
                raise ValueError(f"label must have {self.num_values} values a sample, got {values.shape[1]}.")
            known = values.isfinite().all(dim=1)
            row = known.long() - 1
            columns = torch.cat([columns, torch.where(known.unsqueeze(1), values, 0.0)], dim=1)
        elif self.num_classes and label is not None:
            row = _index(label.reshape(-1), self.num_classes, "label").to(device)
            if row.shape != cluster.shape:
                raise ValueError(f"label must be one class for each of {len(cluster)} samples, got {len(row)}.")
        cell = (cluster % len(self.count)) * self.count.shape[1] + row % self.count.shape[1]  # -1 is the last one
        self.count.view(-1).index_add_(0, cell, torch.ones_like(columns[:, 0]))
        self.total.view(self.count.numel(), -1).index_add_(0, cell, columns)
        self.second.addmm_(columns.T, columns)

    def merge(self, other: FeatureSums | Mapping[str, torch.Tensor]) -> None:
        """
        Add the sums of other samples.

        Args:
            other: sums of the same features, clusters and labels, or their :py:meth:`state_dict`.

        Raises:
            ValueError: when they are of other features, clusters or labels.
        """
        state = other.state_dict() if isinstance(other, FeatureSums) else other
        for name, tensor in self.state_dict().items():
            if name not in state or state[name].shape != tensor.shape:
                got = tuple(state[name].shape) if name in state else "none"
                raise ValueError(f"sums to merge must have {name!r} of shape {tuple(tensor.shape)}, got {got}.")
        for name, tensor in self.state_dict().items():
            tensor += state[name].to(tensor)

    def all_reduce(self) -> None:
        """Add up the sums of all processes, in each of them; in a single process nothing is done."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for tensor in self.state_dict().values():
                torch.distributed.all_reduce(tensor)


def _index(index: torch.Tensor, size: int, name: str) -> torch.Tensor:
    index = index.detach()
    if index.is_floating_point() and name == "label":  # as losses want it
        whole = index.long()
        if bool((whole != index).any()):
            raise ValueError("label must be a class, a whole number, got fractions: num_values is for those.")
        index = whole
    if index.ndim != 1 or index.is_floating_point() or index.is_complex():
        raise ValueError(f"{name} must be an integer index (B,), got {index.dtype}, shape {tuple(index.shape)}.")
    index = index.long()
    if len(index) and not -1 <= int(index.min()) <= int(index.max()) < size:
        raise ValueError(
            f"{name} is from {int(index.min())} to {int(index.max())}: it must be from 0 to {size - 1}, or -1 where "
            "not known."
        )
    return index
