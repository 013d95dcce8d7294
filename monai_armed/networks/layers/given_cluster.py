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

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

import torch
import torch.nn as nn

from ...utils.cluster_index import check_index

__all__ = ["ClusterLayer", "given_cluster"]

# the samples' clusters by the id of each layer that knows them: a thread of its own has its own
_GIVEN: ContextVar[Mapping[int, torch.Tensor | None]] = ContextVar("given_cluster", default=MappingProxyType({}))


class ClusterLayer(nn.Module):
    """
    Base of layers that work by cluster somewhere inside a network that knows nothing of clusters: the layer finds the
    samples' clusters in ``self.cluster`` while :py:func:`given_cluster` is open, and else None there.
    """

    num_clusters: int

    @property
    def cluster(self) -> torch.Tensor | None:
        """The samples' clusters, of the calls of this thread."""
        return _GIVEN.get().get(id(self))


@contextmanager
def given_cluster(network: nn.Module, cluster: torch.Tensor | None) -> Iterator[None]:
    """
    While the context is open, every layer of ``network`` that works by cluster knows the samples' clusters. Nothing is
    set in the network, so that threads may share it.

    Args:
        network: any module with :py:class:`ClusterLayer` layers inside.
        cluster: integer index (B,), -1 where not known, soft assignment (B, C), or None: none is known.

    Raises:
        ValueError: when an index is out of a layer's range.

    Example:
        >>> net = UNet(2, 1, 1, (16, 32), (2,), norm=("recon", {"num_clusters": 12}))
        >>> with given_cluster(net, site):
        ...     out = net(images)
    """
    layers = [m for m in network.modules() if isinstance(m, ClusterLayer)]
    if cluster is not None and not cluster.is_floating_point():
        for count in {layer.num_clusters for layer in layers}:  # once for all of them: a GPU is waited for
            check_index(cluster, count, owner="the random effects have")
    token = _GIVEN.set({**_GIVEN.get(), **dict.fromkeys(map(id, layers), cluster)})
    try:
        yield
    finally:
        _GIVEN.reset(token)
