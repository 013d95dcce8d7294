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

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from monai.networks.blocks import ADN
from monai.networks.layers.factories import Conv, Pool

__all__ = ["ConvAdversary", "DenseAdversary", "PooledAdversary", "WhitenedAdversary"]

Shapes = Sequence[Sequence[int]]

HALF = (torch.float16, torch.bfloat16)


class DenseAdversary(nn.Module):
    """
    Adversary for dense networks (S 3.1.1 of https://arxiv.org/abs/2202.11783): the features, joined, go through hidden
    dense layers to the cluster logits.

    Args:
        feature_shapes: shape of each feature without the batch dimension.
        num_clusters: number of cluster logits.
        hidden_channels: units of the hidden layers; the paper's are (8, 8, 4).
    """

    def __init__(self, feature_shapes: Shapes, num_clusters: int, hidden_channels: Sequence[int] = (8, 8, 4)) -> None:
        super().__init__()
        self.layers = _dense_layers(sum(torch.Size(s).numel() for s in feature_shapes), hidden_channels, num_clusters)

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        return self.layers(torch.cat([f.flatten(1) for f in features], dim=1))


class PooledAdversary(nn.Module):
    """
    Cheap adversary for any network: sees the mean and the s.d. over space of every channel of every feature layer, each
    standardised over the batch, and classifies them with dense layers. A cluster effect in an image (contrast,
    noise, blur, bias field) shows in exactly these statistics.

    Args:
        feature_shapes: shape (channels, *spatial) of each feature without the batch dimension, of tokens (channels,
            tokens).
        num_clusters: number of cluster logits.
        hidden_channels: units of the hidden layers.
    """

    views = 1  # how many times the dense layers see the statistics

    def __init__(self, feature_shapes: Shapes, num_clusters: int, hidden_channels: Sequence[int] = (128, 128)) -> None:
        super().__init__()
        pooled = sum(s[0] * (2 if len(s) > 1 else 1) for s in feature_shapes)
        self.norm = nn.BatchNorm1d(pooled, affine=False)
        self.layers = _dense_layers(self.views * pooled, hidden_channels, num_clusters)

    def _pool(self, feature: torch.Tensor) -> torch.Tensor:
        if feature.ndim == 2:
            return feature
        return torch.cat(spatial_statistics(feature.flatten(2)), dim=1)

    def pool(self, features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """
        Statistics of each feature, (B, channels or 2 channels). ``forward`` takes them as well as the features, so that
        the gradient can be reversed here, where they are small.
        """
        # of half precision in single, also under autocast: the statistics of a batch of half-precision means are coarse
        return [self._pool(f.float() if f.dtype in HALF else f) for f in features]

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        return self.layers(self._normalized(torch.cat(self.pool(features), dim=1)))

    def _normalized(self, pooled: torch.Tensor) -> torch.Tensor:
        pooled = pooled.to(next(self.layers.parameters()).dtype)
        if len(pooled) > 1:
            return self.norm(pooled)
        # the last batch of an epoch may hold one sample, which has no statistics of its own
        return F.batch_norm(pooled, self.norm.running_mean, self.norm.running_var, eps=self.norm.eps)


class WhitenedAdversary(PooledAdversary):
    """
    :py:class:`PooledAdversary` that sees its statistics twice: as they are, and decorrelated by the running covariance,
    so that all directions have the same variance. From a pooled adversary a network can hide the cluster in directions
    along which features hardly vary and gradient descent is slow; a fresh linear classifier still finds it there.

    Args:
        feature_shapes, num_clusters: see :py:class:`PooledAdversary`.
        momentum: share of a batch in the running mean and covariance, of each call in training mode.
        shrinkage: added to the covariance's diagonal, relative to its mean: directions with less variance than that
            are not blown up.
        pooled_options: further arguments of :py:class:`PooledAdversary`.

    Raises:
        ValueError: when ``momentum`` or ``shrinkage`` is not above 0.
    """

    views = 2
    mean: torch.Tensor
    covariance: torch.Tensor
    calls: torch.Tensor

    def __init__(
        self,
        feature_shapes: Shapes,
        num_clusters: int,
        momentum: float = 0.002,
        shrinkage: float = 0.02,
        **pooled_options: Any,
    ) -> None:
        super().__init__(feature_shapes, num_clusters, **pooled_options)
        if momentum <= 0 or shrinkage <= 0:
            raise ValueError(f"momentum and shrinkage must be above 0, got {momentum} and {shrinkage}.")
        width = self.norm.num_features
        self.momentum, self.shrinkage = momentum, shrinkage
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("covariance", torch.eye(width))
        self.register_buffer("calls", torch.tensor(0))

    def _apply(self, fn: Callable, recurse: bool = True) -> WhitenedAdversary:
        """Half precision is not for the running statistics: in it a small share of a batch is lost in rounding."""
        super()._apply(fn, recurse)
        for name in ("mean", "covariance"):
            if (buffer := self.get_buffer(name)).dtype in HALF:
                self._buffers[name] = buffer.float()
        return self

    @torch.no_grad()
    def _update(self, pooled: torch.Tensor) -> None:
        self.calls += 1
        share = torch.clamp(1 / self.calls, min=self.momentum).to(pooled.dtype)  # at first the mean of all batches
        self.mean += share * (pooled - self.mean).mean(dim=0)
        off = pooled - self.mean
        self.covariance.lerp_(off.T @ off / len(off), share)

    def _whitened(self, pooled: torch.Tensor) -> torch.Tensor:
        pooled = pooled.to(self.mean.dtype)
        with torch.autocast(pooled.device.type, enabled=False):
            if self.training:
                self._update(pooled)
            ridge = self.shrinkage * self.covariance.diagonal().mean().clamp(min=1e-12)
            factor = torch.linalg.cholesky(self.covariance + ridge * torch.eye(len(self.mean)).to(self.mean))
            return torch.linalg.solve_triangular(factor, (pooled - self.mean).T, upper=False).T

    def _normalized(self, pooled: torch.Tensor) -> torch.Tensor:
        normalized = super()._normalized(pooled)
        return torch.cat([normalized, self._whitened(pooled).to(normalized.dtype)], dim=1)


class ConvAdversary(nn.Module):
    """
    Adversary for convolutional networks (S 3.1.2, Fig. S3 of https://arxiv.org/abs/2202.11783): a second convolutional
    network whose blocks (3 x 3 convolution, batch normalisation, PReLU) are each fed with the block before, max-pooled,
    and with the feature of that size. Features without spatial dimensions join before the dense layer. Unlike in the
    paper the last feature map is averaged over space before the dense layer, so that any image size fits.

    Args:
        feature_shapes: shape (channels, *spatial) of each feature without the batch dimension.
        num_clusters: number of cluster logits.
        channels: output channels of each block, as many as there are features with spatial dimensions; by default
            the channels of those features.
        dense_channels: units of the dense layer.
        spatial_dims: number of spatial dimensions, 2 or 3.

    Raises:
        ValueError: when no feature has the spatial dimensions, or ``channels`` has another length.
    """

    def __init__(
        self,
        feature_shapes: Shapes,
        num_clusters: int,
        channels: Sequence[int] | None = None,
        dense_channels: int = 512,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        images = [i for i, s in enumerate(feature_shapes) if len(s) == spatial_dims + 1]
        if not images:
            raise ValueError(
                f"a convolutional adversary needs features with {spatial_dims} spatial dimensions, got shapes "
                f"{feature_shapes}."
            )
        # from the largest to the smallest, whatever the order in which the network makes them (sort is stable)
        self.images = sorted(images, key=lambda i: -torch.Size(feature_shapes[i][1:]).numel())
        self.vectors = [i for i, s in enumerate(feature_shapes) if len(s) == 1]
        channels = [feature_shapes[i][0] for i in self.images] if channels is None else list(channels)
        if len(channels) != len(self.images):
            raise ValueError(f"channels must have one entry for each of {len(self.images)} features, got {channels}.")

        self.spatial_dims = spatial_dims
        blocks, carried = [], 0
        for i, out_channels in zip(self.images, channels):
            conv = Conv[Conv.CONV, spatial_dims](carried + feature_shapes[i][0], out_channels, 3, padding=1, bias=False)
            adn = ADN("NA", in_channels=out_channels, act="PRELU", norm="BATCH", norm_dim=spatial_dims)
            blocks.append(nn.Sequential(conv, adn))
            carried = out_channels
        self.blocks = nn.ModuleList(blocks)
        flat = carried + sum(feature_shapes[i][0] for i in self.vectors)
        self.dense = nn.Sequential(nn.Linear(flat, dense_channels), nn.PReLU(), nn.Linear(dense_channels, num_clusters))

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        out = self.blocks[0](features[self.images[0]])
        for i, block in zip(self.images[1:], self.blocks[1:]):
            out = block(torch.cat([_max_pool(out, features[i].shape[2:]), features[i]], dim=1))
        return self.dense(torch.cat([out.flatten(2).mean(2), *(features[i] for i in self.vectors)], dim=1))


def _max_pool(x: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """Max-pooling to a size, by the much faster plain pooling where the size is an even part of the tensor's."""
    given, dims = x.shape[2:], x.ndim - 2
    if given == size:
        return x
    if all(old % new == 0 for old, new in zip(given, size)):
        return Pool[Pool.MAX, dims]([old // new for old, new in zip(given, size)])(x)
    return Pool[Pool.ADAPTIVEMAX, dims](size)(x)


def _dense_layers(in_channels: int, hidden_channels: Sequence[int], out_channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in hidden_channels:
        layers += [nn.Linear(in_channels, channels), nn.ReLU()]
        in_channels = channels
    return nn.Sequential(*layers, nn.Linear(in_channels, out_channels))


class _SpatialStatistics(torch.autograd.Function):
    """``torch.var_mean`` takes five passes over the tensor in the backward pass, and a slow one in the forward pass."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
        mean = x.mean(dim=-1)
        square = torch.linalg.vector_norm(x, dim=-1).square() / x.shape[-1]
        return mean, (square - mean.square()).clamp(min=0).add(eps).sqrt()

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: tuple) -> None:
        ctx.save_for_backward(inputs[0], *output)

    @staticmethod
    def backward(ctx, mean_grad: torch.Tensor, sd_grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        x, mean, sd = ctx.saved_tensors
        slope = sd_grad / (sd * x.shape[-1])
        offset = mean_grad / x.shape[-1] - slope * mean
        return torch.addcmul(offset.unsqueeze(-1), slope.unsqueeze(-1), x), None


def spatial_statistics(x: torch.Tensor, eps: float = 1e-6) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Mean and s.d. over the last dimension, in one pass over the tensor forwards and one backwards. The variance is the
    mean square less the squared mean: meant for features, whose mean is not thousands of times their s.d.

    Args:
        x: (..., N), such as channels with flattened space.
        eps: added to the variance.

    Returns:
        mean and s.d., each (...).
    """
    return _SpatialStatistics.apply(x, eps)
