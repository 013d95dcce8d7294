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

import torch
import torch.nn as nn

__all__ = ["ClusterNetwork"]

UNKNOWN_POLICIES = ("population", "infer", "error")


class ClusterNetwork(nn.Module):
    """
    Base of networks that take the sample's cluster as a second input: checks the cluster, and decides what happens
    where it is not known.

    The samples may be grouped by several factors at once, nested (subject within site) or crossed (batch and operator);
    each has its clusters. The first factor is the one that a Z-predictor and an adversary are made for.

    Args:
        num_clusters: number of clusters C seen in training; for several factors that of each by its name, such as
            ``{"site": 12, "subject": 300}``.
        unknown: what to do where the cluster is not given or -1: ``"population"`` (no random effects),
            ``"infer"`` (ask the Z-predictor, Section 2.4 of https://arxiv.org/abs/2202.11783; of the other factors the
            population) or ``"error"``.

    Attributes:
        factors: number of clusters of each factor by its name, ``"cluster"`` where only a number was given.

    Raises:
        ValueError: when ``unknown`` is none of these, or a factor has a name that PyTorch has for something else.
    """

    def __init__(self, num_clusters: int | Mapping[str, int], unknown: str = "population") -> None:
        super().__init__()
        self.factors = dict(num_clusters) if isinstance(num_clusters, Mapping) else {"cluster": num_clusters}
        if not self.factors:
            raise ValueError('num_clusters must name a factor at least, such as {"site": 12}, got an empty mapping.')
        for name in self.factors:
            if not name.isidentifier() or hasattr(nn.ModuleDict, name):
                raise ValueError(f"a factor cannot be called {name!r}: take a word that PyTorch does not use.")
        self.unknown = self._checked_policy(unknown)
        self.z_predictor: nn.Module | None = None
        self.max_entropy: float | None = None

    @property
    def num_clusters(self) -> int:
        """Number of clusters of the first factor."""
        return next(iter(self.factors.values()))

    @staticmethod
    def _checked_policy(unknown: str) -> str:
        if unknown not in UNKNOWN_POLICIES:
            raise ValueError(f"unknown must be one of {UNKNOWN_POLICIES}, got {unknown!r}.")
        return unknown

    def attach_z_predictor(self, z_predictor: nn.Module, max_entropy: float | None = None) -> ClusterNetwork:
        """
        Use ``z_predictor`` for samples of unknown cluster from now on (``unknown="infer"``). Its weights are frozen.

        Args:
            z_predictor: in evaluation mode maps the network's input to a soft assignment (B, C).
            max_entropy: between 0 and 1, in units of ln(C): where the assignment's entropy is above it, the predictor
                does not know the sample's like, and the population prediction is given. None: always infer.

        Returns:
            the network itself.

        Raises:
            ValueError: when the predictor was made for another number of clusters or ``max_entropy`` is out of range.
        """
        clusters = getattr(z_predictor, "num_clusters", self.num_clusters)
        if clusters != self.num_clusters:
            raise ValueError(f"the Z-predictor was made for {clusters} clusters, the network for {self.num_clusters}.")
        if max_entropy is not None and not 0 <= max_entropy <= 1:
            raise ValueError(f"max_entropy must be between 0 and 1, in units of ln(C), got {max_entropy}.")
        self.z_predictor = z_predictor.eval().requires_grad_(False)
        self.max_entropy = max_entropy
        self.unknown = "infer"
        return self

    def train(self, mode: bool = True) -> ClusterNetwork:
        super().train(mode)
        if self.z_predictor is not None:
            self.z_predictor.eval()  # it is trained on its own, before it is attached
        return self

    def infer_cluster(self, x: torch.Tensor) -> torch.Tensor:
        """
        Soft assignment (B, C) of new samples by the Z-predictor; a row of zeros, the population, where its entropy is
        above ``max_entropy``.

        Raises:
            ValueError: when no Z-predictor is attached.
        """
        if self.z_predictor is None:
            raise ValueError(
                "unknown='infer' needs a Z-predictor: call attach_z_predictor, or use unknown='population'."
            )
        with torch.no_grad():
            z = self.z_predictor(x)
        if self.max_entropy is not None:
            entropy = torch.special.entr(z).sum(dim=1, keepdim=True) / math.log(self.num_clusters)
            z = torch.where(entropy > self.max_entropy, torch.zeros_like(z), z)
        return z

    def resolve_factors(
        self,
        x: torch.Tensor,
        cluster: torch.Tensor | Mapping[str, torch.Tensor] | None = None,
        unknown: str | None = None,
    ) -> dict[str, torch.Tensor]:
        """
        The clusters of every factor that the random effects are looked up with.

        Args:
            x: the network's input, for the Z-predictor.
            cluster: for a single factor as :py:meth:`resolve_cluster` takes it; for several a dict of such by the
                factors' names, where a factor may be left out if it is not known. In evaluation one tensor is the
                cluster of the first factor, and of the others nothing is known.
            unknown: overrides the network's policy in this call.

        Returns:
            for every factor what :py:meth:`resolve_cluster` returns.

        Raises:
            ValueError: as :py:meth:`resolve_cluster`, and when the factors are not those of the network.
        """
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
        given = {} if cluster is None else dict(cluster)
        if not set(given) <= set(names):
            raise ValueError(f"cluster is given for {list(given)}, but the network has the factors {names}.")
        return {name: self.resolve_cluster(x, given.get(name), unknown, name) for name in names}

    def resolve_cluster(
        self,
        x: torch.Tensor,
        cluster: torch.Tensor | None = None,
        unknown: str | None = None,
        factor: str | None = None,
    ) -> torch.Tensor:
        """
        The cluster of one factor that the random effects are looked up with.

        Args:
            x: the network's input, for the Z-predictor.
            cluster: integer index (B,) with -1 where not known, soft assignment (B, C), or None where none is known.
            unknown: overrides the network's policy in this call.
            factor: name of the factor, by default the first.

        Returns:
            integer index (B,), -1 for the population, or soft assignment (B, C).

        Raises:
            ValueError: when an index is out of range, the shape is neither (B,) nor (B, C), or a cluster is not known
                and the policy is ``"error"``.
        """
        first = next(iter(self.factors))
        factor = first if factor is None else factor
        policy = self.unknown if unknown is None else self._checked_policy(unknown)
        if policy == "infer" and (self.training or factor != first):
            policy = "population"  # in training a sample of unknown cluster teaches the fixed effects only
        called = "cluster" if len(self.factors) == 1 else factor
        if cluster is None:
            if policy == "error":
                raise ValueError(f"no {called} was given and unknown='error': pass it, or choose another policy.")
            if policy == "infer":
                return self.infer_cluster(x)
            return torch.full((x.shape[0],), -1, dtype=torch.long, device=x.device)
        if cluster.is_floating_point():
            _check_soft(cluster, x, called, self.factors[factor])
            return cluster
        cluster = cluster.long()  # small integer types can be neither compared with the count nor used to index
        _check_index(cluster, x, called, self.factors[factor])
        if policy == "population" or not _can_branch(cluster) or not bool((cluster < 0).any()):
            return cluster
        if policy == "error":
            raise ValueError(
                f"the {called} of {int((cluster < 0).sum())} of {len(cluster)} samples is not known (-1) and "
                "unknown='error': choose 'population' or 'infer' for samples of new clusters."
            )
        known = torch.nn.functional.one_hot(cluster.clamp(min=0), self.num_clusters).to(x.dtype)
        return torch.where((cluster >= 0).unsqueeze(1), known, self.infer_cluster(x).to(x.dtype))


def _check_soft(cluster: torch.Tensor, x: torch.Tensor, called: str, num_clusters: int) -> None:
    if cluster.shape != (x.shape[0], num_clusters):
        raise ValueError(
            f"a soft {called} assignment must have shape (batch, clusters) = ({x.shape[0]}, {num_clusters}), "
            f"got {tuple(cluster.shape)}; a cluster index must be an integer tensor."
        )
    if _can_branch(cluster) and bool(((cluster < -1e-3).any(dim=1) | (cluster.sum(dim=1) > 1.01)).any()):
        raise ValueError(f"a soft {called} assignment must hold probabilities, whose sum in a row is at most 1.")


def _check_index(cluster: torch.Tensor, x: torch.Tensor, called: str, num_clusters: int) -> None:
    if cluster.shape != (x.shape[0],):
        raise ValueError(f"a {called} index must have shape (batch,) = ({x.shape[0]},), got {tuple(cluster.shape)}.")
    if not _can_branch(cluster):
        return
    out_of_range = (cluster < -1) | (cluster >= num_clusters)
    if bool(out_of_range.any()):
        raise ValueError(
            f"{called} index {int(cluster[out_of_range][0])} is out of range: the network has clusters 0 to "
            f"{num_clusters - 1}, and -1 means not known."
        )


def _can_branch(tensor: torch.Tensor) -> bool:
    """Whether Python may look at values: not while a graph is recorded, nor inside ``torch.func.vmap``."""
    return not (
        torch.jit.is_tracing()
        or torch.compiler.is_compiling()
        or torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )
