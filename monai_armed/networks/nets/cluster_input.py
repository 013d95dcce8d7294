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

import torch
import torch.nn as nn

from ..layers.feature_layers import find_layer, first_tensor, temporary_hooks
from .cluster_network import ClusterNetwork

__all__ = ["ClusterInput"]


class ClusterInput(ClusterNetwork):
    """
    The "cluster input" network that the paper compares with (Section 2.6 of https://arxiv.org/abs/2202.11783): the
    cluster Z, one-hot, is joined to the input of a named linear layer; for a dense network that is its first layer, for
    a convolutional one the dense layer after flattening. A cluster that is not known is a row of zeros, or the
    Z-predictor's assignment.

    Args:
        network: any module with one input that returns a tensor; the named layer in it is replaced by a wider one.
        num_clusters: number of clusters C seen in training.
        layer: name of the linear layer.
        unknown: what happens where the cluster is not given or -1, see :py:class:`ClusterResolution`.

    Raises:
        ValueError: when ``layer`` does not exist or is not linear.
    """

    def __init__(self, network: nn.Module, num_clusters: int, layer: str, unknown: str = "population") -> None:
        super().__init__(num_clusters, unknown)
        narrow = find_layer(network, layer)
        if not isinstance(narrow, nn.Linear):
            raise ValueError(f"layer {layer!r} must be a linear layer, got {type(narrow).__name__}.")
        width = narrow.in_features + num_clusters
        wide = nn.Linear(width, narrow.out_features, bias=narrow.bias is not None)
        wide.to(narrow.weight.device, narrow.weight.dtype)
        parent, _, name = layer.rpartition(".")
        setattr(network.get_submodule(parent), name, wide)
        self.network, self.layer = network, layer

    def forward(self, x: torch.Tensor, cluster: torch.Tensor | None = None, unknown: str | None = None) -> torch.Tensor:
        """
        Args:
            x: the network's input, (B, ...).
            cluster: integer index (B,), -1 where not known; soft assignment (B, C); or None: none is known.
            unknown: overrides the policy for unknown clusters in this call.

        Returns:
            the network's output.
        """
        z = self.clusters.of_first(x, cluster, unknown)
        if not z.is_floating_point():
            z = z.unsqueeze(1) == torch.arange(self.num_clusters, device=z.device)  # one-hot; -1 is a row of zeros

        def join(given: torch.Tensor) -> torch.Tensor:
            return torch.cat([given, z.to(given.dtype)], dim=1)

        with temporary_hooks(self.network, {self.layer: join}, {}):
            return first_tensor(self.network(x))
