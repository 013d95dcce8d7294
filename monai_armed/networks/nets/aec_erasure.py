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

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from monai.networks.utils import eval_mode

from ..erasure import cluster_means, erase_directions

if TYPE_CHECKING:
    from .armed_aec import ARMEDAEC

__all__ = ["erase_clusters"]


@torch.no_grad()
def erase_clusters(
    self: ARMEDAEC, batches: Iterable[Mapping[str, torch.Tensor]], shrinkage: float = 1e-3
) -> torch.Tensor:
    """
    Remove from e_F what tells the clusters, in closed form, and freeze the encoder, see
    :py:func:`monai_armed.networks.erasure.erase_directions`. Erased are the differences between the clusters' mean
    latents and, with random effects, between the latents of the same images shown as if from one cluster or another, in
    which no sample's own differences take part. The decoders and classifiers do not know the latent that is left: train
    them on.

    Args:
        batches: the training images and their clusters: dicts of ``"image"``, (B, *in_shape), and ``"cluster"``, index
            (B,), -1 where not known.
        shrinkage: see :py:func:`monai_armed.networks.erasure.erase_directions`.

    Returns:
        the projection (D, D) of the latent.

    Raises:
        ValueError: when no two clusters have images.
    """
    device, count = self.fixed.to_latent.weight.device, self.num_clusters
    latents, clusters, changes, shown = [], [], [], []
    with eval_mode(self):
        for batch in batches:
            image, cluster = (torch.as_tensor(batch[name]).to(device) for name in ("image", "cluster"))
            latents.append(self.fixed.encode(image))
            clusters.append(cluster)
            if self.random is not None:
                step = 1 + torch.arange(len(cluster), device=device) % max(1, count - 1)
                shown.append(torch.where(cluster < 0, -1, (cluster + step) % count))
                as_other = self.reconstruct(image, cluster, as_cluster=shown[-1])
                changes.append(self.fixed.encode(as_other) - latents[-1])
    cluster = torch.cat(clusters) if clusters else torch.empty(0, dtype=torch.long)
    if len(cluster[cluster >= 0].unique()) < 2:
        raise ValueError("erasing what tells the clusters needs images of at least two known clusters.")
    directions = [cluster_means(torch.cat(latents), cluster, count)]
    if changes:
        directions.append(cluster_means(torch.cat(changes), torch.cat(shown), count))
    projection = erase_directions(self.fixed.to_latent, torch.cat(latents), torch.cat(directions), shrinkage)
    self.freeze_encoder()
    return projection
