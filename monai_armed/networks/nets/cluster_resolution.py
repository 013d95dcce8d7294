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

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F

from ...utils.cluster_index import can_look, check_index

__all__ = ["ClusterResolution", "Clusters"]

Clusters = torch.Tensor | Mapping[str, torch.Tensor] | None

POLICIES = ("population", "infer", "error")


class ClusterResolution(nn.Module):
    """
    Which clusters random effects are looked up with: checks the clusters that a network is given, of one factor or of
    several, and decides what happens where they are not known. A Z-predictor and an adversary are of the first factor.

    Args:
        num_clusters: number of clusters C seen in training; for several factors, nested (subject within site) or
            crossed (batch and operator), that of each by its name, such as ``{"site": 12, "subject": 300}``. A single
            factor is called ``"cluster"`` unless it is named.
        unknown: what to do where the cluster is not given or -1: ``"population"`` (no random effects), ``"infer"`` (ask
            the Z-predictor, Section 2.4 of https://arxiv.org/abs/2202.11783; of the other factors the population) or
            ``"error"``.

    Raises:
        ValueError: when ``unknown`` is none of these, or a factor has a name that PyTorch has for something else.

    Example:
        >>> clusters = ClusterResolution({"site": 12, "subject": 300})
        >>> clusters(images, {"site": torch.tensor([0, 11, -1])})["subject"]
        tensor([-1, -1, -1])
    """

    def __init__(self, num_clusters: int | Mapping[str, int], unknown: str = "population") -> None:
        super().__init__()
        self.factors = dict(num_clusters) if isinstance(num_clusters, Mapping) else {"cluster": num_clusters}
        if not self.factors:
            raise ValueError('num_clusters must name a factor at least, such as {"site": 12}, got an empty mapping.')
        for name in self.factors:
            if not name.isidentifier() or hasattr(nn.ModuleDict(), name):
                raise ValueError(f"a factor cannot be called {name!r}: take a word that PyTorch does not use.")
        self.unknown = self._checked_policy(unknown)
        self.z_predictor: nn.Module | None = None
        self.max_entropy: float | None = None

    @property
    def first(self) -> str:
        """Name of the first factor."""
        return next(iter(self.factors))

    @property
    def num_clusters(self) -> int:
        """Number of clusters of the first factor."""
        return self.factors[self.first]

    @property
    def has_named_factors(self) -> bool:
        """Whether the user has named the factors, such as site and subject."""
        return list(self.factors) != ["cluster"]

    @staticmethod
    def _checked_policy(unknown: str) -> str:
        if unknown not in POLICIES:
            raise ValueError(f"unknown must be one of {POLICIES}, got {unknown!r}.")
        return unknown

    def attach_z_predictor(self, z_predictor: nn.Module, max_entropy: float | None = None) -> None:
        """See :py:meth:`ClusterNetwork.attach_z_predictor`."""
        clusters = getattr(z_predictor, "num_clusters", self.num_clusters)
        if clusters != self.num_clusters:
            raise ValueError(f"the Z-predictor was made for {clusters} clusters, the network for {self.num_clusters}.")
        if max_entropy is not None and not 0 <= max_entropy <= 1:
            raise ValueError(f"max_entropy must be between 0 and 1, in units of ln(C), got {max_entropy}.")
        self.z_predictor = z_predictor.eval().requires_grad_(False)
        self.max_entropy = max_entropy
        self.unknown = "infer"

    def train(self, mode: bool = True) -> ClusterResolution:
        super().train(mode)
        if self.z_predictor is not None:
            self.z_predictor.eval()  # it is trained on its own, before it is attached
        return self

    def infer(self, x: torch.Tensor) -> torch.Tensor:
        """
        Soft assignment (B, C) of samples (B, ...) by the Z-predictor, which must be attached; a row of zeros, the
        population, where its entropy is above ``max_entropy``, and where it knows one cluster alone.
        """
        if self.z_predictor is None:
            raise ValueError(
                "unknown='infer' needs a Z-predictor: call attach_z_predictor, or use unknown='population'."
            )
        with torch.no_grad():
            z = self.z_predictor(x)
        inferred = z.shape[1]
        if inferred == 1:
            z = torch.zeros_like(z)  # who knows one cluster alone cannot say that a new one is like it
        elif self.max_entropy is not None:
            entropy = torch.special.entr(z).sum(dim=1, keepdim=True) / math.log(inferred)
            z = torch.where(entropy > self.max_entropy, torch.zeros_like(z), z)
        return F.pad(z, (0, self.num_clusters - inferred))  # clusters that were adapted to are not among the inferred

    def forward(self, x: torch.Tensor, cluster: Clusters = None, unknown: str | None = None) -> dict[str, torch.Tensor]:
        """
        Args:
            x: the network's input, (B, ...), for the Z-predictor.
            cluster: integer index (B,) with -1 where not known, or (1,) for all samples alike; soft assignment (B, C);
                or None where none is known. For several factors a dict of such by their names, where one that is not
                known may be left out; in evaluation a tensor alone is of the first factor.
            unknown: overrides the policy in this call.

        Returns:
            for every factor an integer index (B,), -1 for the population, or a soft assignment (B, C).

        Raises:
            ValueError: when an index is out of range, the shape is neither of these, the factors are others, or a
                cluster is not known and the policy is ``"error"``.
        """
        return {name: self._resolved(x, c, unknown, name) for name, c in self._by_factor(cluster).items()}

    def of_first(self, x: torch.Tensor, cluster: Clusters = None, unknown: str | None = None) -> torch.Tensor:
        """The same for the first factor alone."""
        return self._resolved(x, self._by_factor(cluster)[self.first], unknown, self.first)

    def _by_factor(self, cluster: Any) -> dict[str, torch.Tensor | None]:
        names = list(self.factors)
        if not (cluster is None or isinstance(cluster, (torch.Tensor, Mapping))):
            raise ValueError(
                f"cluster must be a tensor of indices or a dict of such by factor, got {type(cluster).__name__}: "
                "make it one with torch.as_tensor."
            )
        if isinstance(cluster, torch.Tensor):
            if self.training and len(names) > 1:
                raise ValueError(
                    f"the network has the factors {names}: in training pass the cluster as a dict of their indices, "
                    f"such as by PrepareBatchCluster(cluster_key={names})."
                )
            cluster = {names[0]: cluster}
        given = dict(cluster or {})
        if not set(given) <= set(names):
            raise ValueError(f"cluster is given for {list(given)}, but the network has the factors {names}.")
        return {name: given.get(name) for name in names}

    def _resolved(
        self, x: torch.Tensor, cluster: torch.Tensor | None, unknown: str | None, factor: str
    ) -> torch.Tensor:
        policy = self.unknown if unknown is None else self._checked_policy(unknown)
        if policy == "infer" and (self.training or factor != self.first):
            policy = "population"  # in training a sample of unknown cluster teaches the fixed effects only
        called = "cluster" if len(self.factors) == 1 else factor
        if cluster is None:
            if policy == "error":
                raise ValueError(f"no {called} was given and unknown='error': pass it, or choose another policy.")
            if policy == "infer":
                return self.infer(x)
            return torch.full((x.shape[0],), -1, dtype=torch.long, device=x.device)
        cluster = _checked(cluster, x, called, self.factors[factor])
        if cluster.is_floating_point() or policy == "population" or not can_look(cluster) or bool((cluster >= 0).all()):
            return cluster
        if policy == "error":
            raise ValueError(
                f"the {called} of {int((cluster < 0).sum())} of {len(cluster)} samples is not known (-1) and "
                "unknown='error': choose 'population' or 'infer' for samples of new clusters."
            )
        known = F.one_hot(cluster.clamp(min=0), self.num_clusters).to(x.dtype)
        return torch.where((cluster >= 0).unsqueeze(1), known, self.infer(x).to(x.dtype))


def _checked(cluster: torch.Tensor, x: torch.Tensor, called: str, num_clusters: int) -> torch.Tensor:
    """The index or soft assignment of each sample; that of one, (1,) or (1, C), is all samples'."""
    soft, count = cluster.is_floating_point(), x.shape[0]
    wanted = (count, num_clusters) if soft else (count,)
    if cluster.shape[:1] == (1,) and count != 1:
        cluster = cluster.expand(count, *cluster.shape[1:])
    if cluster.shape != wanted:
        kind, shape = (f"soft {called} assignment", "batch, clusters") if soft else (f"{called} index", "batch,")
        hint = "a cluster index must be an integer tensor" if soft else "windows of an image need a ClusterInferer"
        raise ValueError(f"a {kind} must have shape ({shape}) = {wanted}, got {tuple(cluster.shape)}; {hint}.")
    if not soft:
        cluster = cluster.long()  # small integer types can be neither compared with the count nor used to index
        check_index(cluster, num_clusters, called)
    elif can_look(cluster) and bool(((cluster < -1e-3).any(dim=1) | (cluster.sum(dim=1) > 1.01)).any()):
        raise ValueError(f"a soft {called} assignment must hold probabilities, whose sum in a row is at most 1.")
    return cluster
