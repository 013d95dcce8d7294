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

import torch
import torch.nn as nn

from ...utils.cluster_index import can_look, check_index
from ..layers.image_light import light_plane, measure_light

__all__ = ["ClusterLight", "shrinkage"]

NUM_EFFECTS = 4  # background in the middle, its two gains, log scale


class ClusterLight(nn.Module):
    """
    What a cluster does to the light of its images, as random effects: a background that is a plane, and a gain of what
    lies on it. An image of cluster j is shown as if from cluster k (Fig. 6 of https://arxiv.org/abs/2202.11783) by::

        x_k = (x - b_j) exp(s_k - s_j) + b_k

    which cannot paint what is not there, and keeps an image's detail. It is a mixed model of each image's light
    m_i = (background, log scale), see :py:func:`monai_armed.networks.layers.image_light.measure_light`, in which larger
    objects may be brighter::

        m_i = mu + beta log area_i + u_j + e_i,   u_j ~ N(0, S_b),   e_i ~ N(0, S_w)

    fitted in closed form: S_w and beta within clusters, S_b by the moments of the clusters' means, u_j as its best
    linear prediction, shrunk the more, the fewer images a cluster has. An image of unknown cluster is a cluster of its
    own with one image.

    Args:
        num_clusters: number of clusters C.

    Attributes:
        fitted: whether the effects are estimated.

    Raises:
        ValueError: when there are fewer than two clusters.

    Example:
        >>> light = ClusterLight(13)
        >>> light.fit([{"image": images, "cluster": batch}])
        >>> as_third = light(images, batch, torch.full_like(batch, 3))
        >>> without_batch = light(images, batch, torch.full_like(batch, -1))
    """

    count: torch.Tensor
    mean: torch.Tensor
    area_slope: torch.Tensor
    effects: torch.Tensor
    between: torch.Tensor
    within: torch.Tensor
    alone: torch.Tensor

    def __init__(self, num_clusters: int) -> None:
        super().__init__()
        if num_clusters < 2:
            raise ValueError(f"num_clusters must be at least 2, got {num_clusters}.")
        self.num_clusters = num_clusters
        self.fitted = False  # known without looking into the buffers, so that networks can be recorded for export
        self.register_buffer("count", torch.zeros(num_clusters))  # images of each cluster, none before the fit
        self.register_buffer("mean", torch.zeros(NUM_EFFECTS))
        self.register_buffer("area_slope", torch.zeros(NUM_EFFECTS))
        self.register_buffer("effects", torch.zeros(num_clusters, NUM_EFFECTS))
        self.register_buffer("between", torch.zeros(NUM_EFFECTS, NUM_EFFECTS))
        self.register_buffer("within", torch.eye(NUM_EFFECTS))
        self.register_buffer("alone", torch.zeros(NUM_EFFECTS, NUM_EFFECTS))  # by which one image's effects are shrunk

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        if not any(name.startswith(prefix) for name in state_dict):  # of before there was a light: one not fitted
            state_dict |= {f"{prefix}{name}": own for name, own in ClusterLight(self.num_clusters).state_dict().items()}
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.fitted = bool((self.count > 0).any())

    @torch.no_grad()
    def fit(self, batches: Iterable[Mapping[str, torch.Tensor]]) -> None:
        """
        Estimate all effects anew. Images pass once and only sums are kept.

        Args:
            batches: dicts of ``"image"``, (B, 1, H, W), and ``"cluster"``, index (B,); those of -1 do not count.

        Raises:
            ValueError: when no cluster has two images, so that nothing tells the clusters' variation from the images'.
        """
        size = NUM_EFFECTS + 1
        count = torch.zeros(self.num_clusters).double()
        total, square = torch.zeros(self.num_clusters, size).double(), torch.zeros(size, size).double()
        for batch in batches:
            image, cluster = torch.as_tensor(batch["image"]), torch.as_tensor(batch["cluster"]).cpu()
            self._check(cluster)
            values = _measured(image.double()).cpu()[cluster >= 0]  # so that the fit does not depend on the batches
            cluster = cluster[cluster >= 0].long()
            count.index_add_(0, cluster, torch.ones(len(cluster)).double())
            total.index_add_(0, cluster, values)
            square += values.T @ values
        freedom = float(count.sum() - (count > 0).sum())
        if freedom < 1:
            raise ValueError("the light of clusters is told from that of images by clusters with two images or more.")
        means = total / count.clamp(min=1)[:, None]
        scatter = (square - (count[:, None] * means).T @ means) / freedom
        slope = torch.zeros(NUM_EFFECTS).double()
        slope[-1] = scatter[-2, -1] / scatter[-1, -1].clamp(min=1e-9)  # the background does not depend on the content
        self._estimate(means[:, :-1] - means[:, -1:] * slope, count, _residual(scatter, slope))
        self.area_slope.copy_(slope)
        self.count.copy_(count)
        self.fitted = True

    def _estimate(self, means: torch.Tensor, count: torch.Tensor, within: torch.Tensor) -> None:
        seen = count > 0
        noise = 1 / count[seen]
        mean = means[seen].mean(dim=0)
        moments = torch.cov(means[seen].T) if seen.sum() > 1 else torch.zeros_like(within)
        variances, axes = torch.linalg.eigh(moments - within * noise.mean())
        between = (axes * variances.clamp(min=0)) @ axes.T
        shrunk = between @ torch.linalg.inv(between + within * noise[:, None, None])
        effects = torch.zeros_like(means)
        effects[seen] = torch.einsum("cij,cj->ci", shrunk, means[seen] - mean)
        alone = shrinkage(between, within)
        found = {"mean": mean, "within": within, "between": between, "effects": effects, "alone": alone}
        for name, value in found.items():
            getattr(self, name).copy_(value)

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """Effects (B, 4) of images (B, 1, H, W) of unknown clusters, each from that image alone."""
        values = _measured(x).to(self.mean)
        return (values[:, :-1] - values[:, -1:] * self.area_slope - self.mean) @ self.alone

    def forward(self, x: torch.Tensor, cluster: torch.Tensor, as_cluster: torch.Tensor) -> torch.Tensor:
        """
        Images as if from another cluster.

        Args:
            x: (B, 1, H, W).
            cluster: index (B,) of each image's own cluster, -1 where not known.
            as_cluster: index (B,) of the cluster to show it as, -1 for the population: without its cluster.

        Returns:
            images (B, 1, H, W).

        Raises:
            ValueError: when an index is not one of the clusters or -1.
        """
        return self.change(x, self.own_effects(x, cluster), as_cluster)

    def own_effects(self, x: torch.Tensor, cluster: torch.Tensor) -> torch.Tensor:
        """Effects (B, 4) of images' own clusters, predicted for those that are not known; see :py:meth:`forward`."""
        self._check(cluster)
        known, own = cluster >= 0, self.effects[cluster.clamp(min=0)]
        if not can_look(cluster):
            return torch.where(known[:, None], own, self.predict(x))
        if not known.all():
            own[~known] = self.predict(x[~known])
        return own

    def change(self, x: torch.Tensor, own: torch.Tensor, as_cluster: torch.Tensor) -> torch.Tensor:
        """:py:meth:`forward` for images whose own effects (B, 4) are there already."""
        self._check(as_cluster)
        other = torch.where((as_cluster < 0)[:, None], torch.zeros_like(own), self.effects[as_cluster.clamp(min=0)])
        return self.relight(x, own, other)

    def relight(self, x: torch.Tensor, own: torch.Tensor | None, other: torch.Tensor | None) -> torch.Tensor:
        """Images (B, 1, H, W) of the light of effects (B, 4), in that of others (B, 4); None: the population's."""
        zeros = torch.zeros_like(self.effects[:1])
        own, other = (zeros if effects is None else effects for effects in (own, other))
        gain = (other[:, 3] - own[:, 3]).exp()[:, None, None, None]
        before, after = (light_plane((self.mean + u)[:, :3], x.shape[2:]) for u in (own, other))
        return (x - before) * gain + after

    def _check(self, cluster: torch.Tensor) -> None:
        check_index(cluster, self.num_clusters, owner="the light has")


def _measured(x: torch.Tensor) -> torch.Tensor:
    """Background, log scale and log area of images, (B, 5) in double precision."""
    light = measure_light(x)
    return torch.cat([light.background, light.log_scale[:, None], light.log_area[:, None]], dim=1).double()


def shrinkage(between: torch.Tensor, within: torch.Tensor) -> torch.Tensor:
    """By which deviations (B, 4) are multiplied from the right to predict effects."""
    between, within = between.double(), within.double()
    return torch.linalg.inv(between + within) @ between


def _residual(scatter: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """Covariance (4, 4) of m - slope * area from that of m and area (5, 5), a little on the diagonal."""
    change = torch.cat([torch.eye(NUM_EFFECTS).double(), -slope[:, None]], dim=1)
    return change @ scatter @ change.T + 1e-10 * torch.eye(NUM_EFFECTS).double()
