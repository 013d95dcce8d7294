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

from collections.abc import Mapping
from typing import Any

import torch.nn as nn

from .cluster_resolution import ClusterResolution

__all__ = ["ClusterNetwork"]

# what state dicts of versions before this one call a part, and what it is called now
RENAMED = {
    "adversary.": "adversary.classifier.",
    "random_slopes.": "random_slopes.cluster.",
    "z_predictor.": "clusters.z_predictor.",
}


class ClusterNetwork(nn.Module):
    """
    Base of networks that take the sample's cluster as a second input: what users call on each of them. The part
    ``clusters``, a :py:class:`ClusterResolution`, does the work.

    Args:
        num_clusters: number of clusters C seen in training, or that of each of several factors by its name.
        unknown: what happens where the cluster is not given or -1, see :py:class:`ClusterResolution`.
    """

    def __init__(self, num_clusters: int | Mapping[str, int], unknown: str = "population") -> None:
        super().__init__()
        self.clusters = ClusterResolution(num_clusters, unknown)

    @property
    def factors(self) -> dict[str, int]:
        """Number of clusters of each factor by its name, ``"cluster"`` where only a number was given."""
        return self.clusters.factors

    @property
    def num_clusters(self) -> int:
        """Number of clusters of the first factor."""
        return self.clusters.num_clusters

    @property
    def z_predictor(self) -> nn.Module | None:
        """The Z-predictor, if one is attached."""
        return self.clusters.z_predictor

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
        self.clusters.attach_z_predictor(z_predictor, max_entropy)
        return self

    def renamed(self, state: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        """A state dict, possibly of an older version, by the names that this network has for its parts."""
        wanted = {prefix + name for name in self.state_dict()}
        pairs = [(prefix + old, prefix + new) for old, new in RENAMED.items()]

        def name_now(name: str) -> str:
            found = [new + name.removeprefix(old) for old, new in pairs if name.startswith(old)]
            return found[0] if name not in wanted and found and found[0] in wanted else name

        return {name_now(name): value for name, value in state.items()}

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        renamed = self.renamed(state_dict, prefix)
        state_dict.clear()
        state_dict.update(renamed)
        super()._load_from_state_dict(state_dict, prefix, *args)
