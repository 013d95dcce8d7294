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

import torch
import torch.nn as nn
import torch.nn.functional as F
from monai.networks.blocks import Convolution
from monai.networks.layers.factories import Norm

from ..layers.given_cluster import ClusterLayer, given_cluster
from ..layers.random_effects import RandomEffects

__all__ = ["RECON", "RECONNorm"]

MIN_POSITIONS = 16  # a 4 x 4 map: with fewer, an instance norm leaves little of a channel but its sign


class RECONNorm(ClusterLayer):
    """
    The normalisation of a random effects convolution (Fig. S5, S 3.1.3 of https://arxiv.org/abs/2202.11783), then for
    each channel c a scale and a bias of the sample's cluster j around those of the population::

        out_c = (w_c norm(x)_c + b_c) (1 + gamma_jc) + beta_jc

    with random effects gamma and beta, whose s.d. are learned. It is registered as MONAI's normalisation ``"recon"``,
    so that any network with an argument ``norm`` takes it; the clusters reach it by
    :py:func:`monai_armed.networks.layers.given_cluster`. Outside of that, as where the cluster is not known, the
    effects are zero, also in training, and learn nothing from the data.

    A map of fewer than 16 positions (4 x 4) is instance-normalised over all its channels together (that is, layer
    normalisation): instance normalisation fails on a 1 x 1 map, and of a 2 x 2 map it leaves almost nothing.

    Args:
        num_features: number of channels.
        num_clusters: number of clusters C seen in training.
        normalization: ``"instance"``, as in the paper, or ``"batch"``, which keeps what tells an image's brightness
            and contrast from another's: an autoencoder cannot reconstruct these after instance normalisation.
        prior_scale: s.d. of the prior of gamma and beta at the start.
        posterior_scale: s.d. of their posterior at the start.

    Raises:
        ValueError: when ``normalization`` is neither, or a number is out of its range.

    Example:
        >>> net = DenseNet121(2, 1, 1, norm=("recon", {"num_clusters": 12}))
        >>> with given_cluster(net, site):
        ...     logits = net(images)
    """

    def __init__(
        self,
        num_features: int,
        num_clusters: int,
        normalization: str = "instance",
        prior_scale: float = 0.1,
        posterior_scale: float = 0.01,
    ) -> None:
        super().__init__()
        if normalization not in ("instance", "batch"):
            raise ValueError(f"normalization must be 'instance' or 'batch', got {normalization!r}.")
        self.num_clusters = num_clusters
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        # one class for maps of any number of dimensions
        self.batch_norm = _BatchNorm(num_features, affine=False) if normalization == "batch" else None
        self.effects = RandomEffects(
            num_clusters,
            2 * num_features,
            prior_scale=prior_scale,
            learn_prior=True,
            posterior_scale=posterior_scale,
        )

    def _normalized(self, x: torch.Tensor) -> torch.Tensor:
        if self.batch_norm is not None:
            return self.batch_norm(x)
        together = x.shape[2:].numel() < MIN_POSITIONS
        return F.group_norm(x, 1 if together else x.shape[1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised maps (B, channels, *spatial) of such."""
        if self.cluster is None:
            scale, shift = self.weight.unsqueeze(0), self.bias.unsqueeze(0)
        else:
            gamma, beta = self.effects(self.cluster, checked=True).chunk(2, dim=1)
            scale, shift = self.weight * (1 + gamma), self.bias * (1 + gamma) + beta
        spatial = (...,) + (None,) * (x.ndim - 2)
        return torch.addcmul(shift[spatial], self._normalized(x), scale[spatial])


class _BatchNorm(nn.modules.batchnorm._BatchNorm):
    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Any number of spatial dimensions."""


Norm.add_factory_class("recon", RECONNorm, "Normalisation with random effects of the sample's cluster")


class RECON(Convolution):
    """
    Random effects convolution (Fig. S5 of https://arxiv.org/abs/2202.11783): MONAI's convolution block with
    :py:class:`RECONNorm`, which may be called with the cluster.

    Args:
        spatial_dims: 2 or 3.
        in_channels: number of input channels.
        out_channels: number of output channels.
        num_clusters: number of clusters C seen in training.
        random_effects: further arguments of :py:class:`RECONNorm`.
        kwargs: further arguments of ``monai.networks.blocks.Convolution``, such as ``strides`` and ``act``.

    Example:
        >>> RECON(2, 1, 8, num_clusters=12)(images, cluster).shape
        torch.Size([4, 8, 64, 64])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        num_clusters: int,
        random_effects: Mapping | None = None,
        **kwargs,
    ) -> None:
        norm = ("recon", {"num_clusters": num_clusters, **(random_effects or {})})
        super().__init__(spatial_dims, in_channels, out_channels, norm=norm, **kwargs)

    def forward(self, x: torch.Tensor, cluster: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            x: (B, in_channels, *spatial).
            cluster: index (B,) with -1 where not known, or soft assignment (B, C); None: that of an open
                :py:func:`monai_armed.networks.layers.given_cluster`, or not known.
        """
        if cluster is None:
            return super().forward(x)
        with given_cluster(self, cluster):
            return super().forward(x)
