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

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn as nn

__all__ = ["ClusterLayer", "given_cluster"]


class ClusterLayer(nn.Module):
    """
    Base of layers that work by cluster somewhere inside a network that knows nothing of clusters: the layer finds the
    samples' clusters in ``self.cluster``, which :py:func:`given_cluster` sets.
    """

    cluster: torch.Tensor | None = None


@contextmanager
def given_cluster(network: nn.Module, cluster: torch.Tensor | None) -> Iterator[None]:
    """
    While the context is open, every layer of ``network`` that works by cluster knows the samples' clusters.

    Args:
        network: any module with :py:class:`ClusterLayer` layers inside.
        cluster: integer index (B,), -1 where not known, soft assignment (B, C), or None: none is known.

    Example:
        >>> net = UNet(2, 1, 1, (16, 32), (2,), norm=("recon", {"num_clusters": 12}))
        >>> with given_cluster(net, site):
        ...     out = net(images)
    """
    layers = [m for m in network.modules() if isinstance(m, ClusterLayer)]
    before = [layer.cluster for layer in layers]
    try:
        for layer in layers:
            layer.cluster = cluster
        yield
    finally:
        for layer, old in zip(layers, before):
            layer.cluster = old
