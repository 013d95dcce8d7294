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

from collections.abc import Iterator, Sequence

import torch

from ..blocks.cluster_light import ClusterLight
from ..layers.given_cluster import given_cluster
from .aec import AEC
from .cluster_network import ClusterNetwork

__all__ = ["AECPictures"]

EFFECTS = ("mixed", "fixed")


class AECPictures(ClusterNetwork):
    """What an :py:class:`ARMEDAEC` paints: reconstructions, and images as if from another cluster."""

    fixed: AEC
    random: AEC | None
    mixed_latent: str
    light: ClusterLight | None
    removes_light: bool

    def own_light(self, x: torch.Tensor, cluster: torch.Tensor | None = None) -> torch.Tensor | None:
        """
        Effects (B, 4) of the light of images (B, *in_shape): their cluster's, or, where it is not known for certain,
        what each image alone tells of them. None where the network does not take the light away.
        """
        if self.light is None or not (self.removes_light and self.light.fitted):
            return None
        index = self.clusters.of_first(x, cluster, "population")
        if index.is_floating_point():
            index = torch.full_like(index[:, 0], -1, dtype=torch.long)
        return self.light.own_effects(x, index)

    def encode(self, x: torch.Tensor, cluster: torch.Tensor | None = None) -> torch.Tensor:
        """
        The fixed latent e_F.

        Args:
            x: (B, *in_shape).
            cluster: cluster of each image, as for the call of the network: whose light is taken away.

        Returns:
            (B, D).
        """
        return self._encode(x, self.own_light(x, cluster))

    def _encode(self, x: torch.Tensor, own: torch.Tensor | None) -> torch.Tensor:
        return self.fixed.encode(x if self.light is None or own is None else self.light.relight(x, own, None))

    def _lit(self, decoded: torch.Tensor, own: torch.Tensor | None) -> torch.Tensor:
        """What was decoded without light, in the light of these effects."""
        return decoded if self.light is None or own is None else self.light.relight(decoded, None, own)

    @property
    def _decodes_fixed(self) -> bool:
        return self.random is not None and self.mixed_latent == "fixed"

    def decode_fixed(self, latent: torch.Tensor) -> torch.Tensor:
        """Images (B, *in_shape) without cluster effects from the fixed latent e_F (B, D)."""
        if self.random is None or not self._decodes_fixed:
            return self.fixed.decode(latent)
        with given_cluster(self.random, None):
            return self.random.decode(latent)

    @torch.no_grad()
    def reconstruct(
        self,
        x: torch.Tensor,
        cluster: torch.Tensor | None = None,
        effects: str = "mixed",
        as_cluster: torch.Tensor | None = None,
        keep_detail: bool = True,
        unknown: str | None = None,
    ) -> torch.Tensor:
        """
        Reconstruction of images, or what they would look like from another cluster (Fig. 6), in evaluation mode.

        Args:
            x: (B, *in_shape).
            cluster: cluster of each image, as for the call of the network.
            effects: ``"fixed"``, without cluster effects, or ``"mixed"``, with them if the network has any.
            as_cluster: index (B,) of the cluster as which the images are shown; -1: as the population.
            keep_detail: whether the change of cluster, decoded as the other cluster less decoded as its own, is added
                to the image itself, which keeps the detail that the latent loses.
            unknown: overrides the policy for unknown clusters in this call.

        Returns:
            images (B, *in_shape).

        Raises:
            ValueError: when there are no random effects and ``as_cluster`` is given, ``effects`` is neither, or the
                network is in training mode, where reconstructing would move its running statistics.
        """
        if effects not in EFFECTS:
            raise ValueError(f"effects must be one of {EFFECTS}, got {effects!r}.")
        if self.random is None and as_cluster is not None:
            raise ValueError("the network has no random effects: it cannot show an image as if from another cluster.")
        if self.training:
            raise ValueError("images are reconstructed in evaluation mode: call network.eval() first.")
        own = self.own_light(x, cluster)
        if self.random is None or effects == "fixed":
            return self.decode_fixed(self._encode(x, own))
        own = own if self._decodes_fixed else None  # the random latent is of the image as it is
        with given_cluster(self.random, self.clusters.of_first(x, cluster, unknown)):
            latent = self._encode(x, own) if self._decodes_fixed else self.random.encode(x)
            as_own = self._lit(self.random.decode(latent), own)
        if as_cluster is None:
            return as_own
        index = self.clusters.of_first(x, as_cluster, "population")
        with given_cluster(self.random, index):
            as_other = self.random.decode(latent)
        if self.light is not None and own is not None:
            as_other = self.light.change(as_other, torch.zeros_like(own), index)
        return x + as_other - as_own if keep_detail else as_other

    @property
    def shows_clusters(self) -> bool:
        """Whether images can be shown as if from another cluster: by a light that is fitted, or by random effects."""
        return self.random is not None or (self.light is not None and self.light.fitted)

    @torch.no_grad()
    def show_as(self, x: torch.Tensor, cluster: torch.Tensor, as_cluster: torch.Tensor) -> torch.Tensor:
        """
        Images as if from another cluster (Fig. 6), by the light's random effects where they are fitted; else as
        :py:meth:`reconstruct` shows them.

        Args:
            x: (B, *in_shape).
            cluster: index (B,) of each image's own cluster, -1 where not known: then its light tells it.
            as_cluster: index (B,) of the cluster to show it as; -1: as the population, without its cluster.

        Returns:
            images (B, *in_shape).

        Raises:
            ValueError: see :py:meth:`reconstruct`.
        """
        if self.light is not None and self.light.fitted:
            return self.light(x, cluster, as_cluster)
        return self.reconstruct(x, cluster, as_cluster=as_cluster)

    @torch.no_grad()
    def show_as_each(
        self, x: torch.Tensor, cluster: torch.Tensor, targets: Sequence[int], own: torch.Tensor | None = None
    ) -> Iterator[torch.Tensor]:
        """
        The same images as if from one cluster after the other; what is known of their own is worked out once.

        Args:
            x, cluster: see :py:meth:`show_as`.
            targets: clusters, -1 for the population.
            own: effects (B, 4) of the images' own light, where they are there already.

        Yields:
            images (B, *in_shape), for each target.
        """
        light = self.light if self.light is not None and self.light.fitted else None
        if light is not None and own is None:
            own = light.own_effects(x, cluster)
        for target in targets:
            as_cluster = torch.full_like(cluster, target)
            if light is None or own is None:
                yield self.reconstruct(x, cluster, as_cluster=as_cluster)
            else:
                yield light.change(x, own, as_cluster)
