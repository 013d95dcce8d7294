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

import torch
import torch.nn as nn
from pyro import distributions as dist
from torch.distributions import kl_divergence

from ...utils.cluster_index import check_index

__all__ = ["RandomEffects"]

# With more clusters than this, training does not go over all of them in each step: noise is drawn for the clusters of
# the batch alone, and the KL term is estimated from some that are drawn at random.
MANY_CLUSTERS, KL_CLUSTERS = 1000, 256


def _at_least_single(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _tril(log_scale: torch.Tensor, lower: torch.Tensor) -> torch.Tensor:
    """Cholesky factors of covariances: ``lower`` is relative to the diagonal entry of its row."""
    eye = torch.eye(log_scale.shape[-1], dtype=log_scale.dtype, device=log_scale.device)
    return log_scale.exp().unsqueeze(-1) * (lower.tril(-1) + eye)


def _normal(loc: torch.Tensor, log_scale: torch.Tensor, lower: torch.Tensor | None) -> dist.TorchDistribution:
    """Over the last dimension, whose entries correlate if there is a ``lower``."""
    loc, log_scale = _at_least_single(loc), _at_least_single(log_scale)
    if lower is None:
        return dist.Normal(loc, log_scale.exp(), validate_args=False).to_event(1)
    tril = _tril(log_scale, _at_least_single(lower))
    return dist.MultivariateNormal(loc, scale_tril=tril, validate_args=False)


def _deviation(log_scale: torch.Tensor, lower: torch.Tensor | None) -> torch.Tensor:
    """S.d. of each entry of such a distribution."""
    return log_scale.exp() if lower is None else _tril(log_scale, lower).norm(dim=-1)


class RandomEffects(nn.Module):
    """
    Random effects u(z): for every cluster a Gaussian posterior over ``num_effects`` weights, with a zero-mean Gaussian
    prior that all clusters share (Section 2.2 of https://arxiv.org/abs/2202.11783). The layer is a look-up by cluster;
    what the effects are multiplied with or added to is the business of the block that uses it.

    A learned prior comes with a stretch, a factor for each effect by which posterior and prior grow together (parameter
    expansion, https://doi.org/10.1093/biomet/85.4.755). The KL term does not change with it, so that it follows the
    likelihood alone. It adds nothing to the model, but without it a prior that starts too small holds the posterior,
    which holds the prior. In evaluation mode it is 1, folded into ``loc`` and the scales.

    Args:
        num_clusters: number of clusters C seen in training.
        num_effects: number of random effects Q of one cluster.
        prior_scale: s.d. of the prior, a number or one for each effect.
        learn_prior: if True, ``prior_scale`` is only the start and the prior is learned: its s.d. are then the
            variance components of a mixed model. If False the prior is fixed, as in Eq. 8.
        posterior_scale: s.d. of the posterior at the start, in the unit of the effects. Its mean starts at zero.
        covariance: ``"diagonal"``, as in the paper, or ``"full"``: the effects of one cluster may correlate, in the
            posterior and, if it is learned, in the prior. ``"full"`` holds C x Q x Q numbers: for small Q.
        sampling: what is drawn anew in training: ``"cluster"``, one draw for each cluster that all its samples in the
            batch share, or ``"sample"``, one for each sample, which makes the gradient less noisy (the local
            reparameterisation of https://arxiv.org/abs/1506.02557). A soft assignment always mixes cluster draws.

    Raises:
        ValueError: when an argument is out of its range.

    Example:
        >>> effects = RandomEffects(num_clusters=12, num_effects=3)
        >>> effects(torch.tensor([0, 0, 11, -1])).shape  # -1: cluster not known, effects zero
        torch.Size([4, 3])
    """

    def __init__(
        self,
        num_clusters: int,
        num_effects: int,
        prior_scale: float | torch.Tensor = 0.25,
        learn_prior: bool = False,
        posterior_scale: float = 0.05,
        covariance: str = "diagonal",
        sampling: str = "cluster",
    ) -> None:
        super().__init__()
        for name, number in (("num_clusters", num_clusters), ("num_effects", num_effects)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}.")
        if covariance not in ("diagonal", "full"):
            raise ValueError(f"covariance must be 'diagonal' or 'full', got {covariance!r}.")
        if sampling not in ("cluster", "sample"):
            raise ValueError(f"sampling must be 'cluster' or 'sample', got {sampling!r}.")
        if posterior_scale <= 0:
            raise ValueError(f"posterior_scale must be positive, got {posterior_scale}.")
        prior = torch.as_tensor(prior_scale, dtype=torch.get_default_dtype()).expand(num_effects).clone()
        if not bool((prior > 0).all()):
            raise ValueError(f"prior_scale must be positive, got {prior_scale}.")
        self.num_clusters, self.num_effects = num_clusters, num_effects
        self.learn_prior, self.covariance, self.sampling = learn_prior, covariance, sampling

        self.loc = nn.Parameter(torch.zeros(num_clusters, num_effects))
        self.log_scale = nn.Parameter(torch.full((num_clusters, num_effects), math.log(posterior_scale)))
        self.log_prior_scale = nn.Parameter(prior.log(), requires_grad=learn_prior)
        self.log_stretch = nn.Parameter(torch.zeros(num_effects)) if learn_prior else None
        self._folded_version = -1  # of `log_stretch`
        self._batch: torch.Tensor | None = None
        self.samples_seen: torch.Tensor | None
        many = num_clusters > MANY_CLUSTERS
        self.register_buffer("samples_seen", torch.zeros(num_clusters) if many else None, persistent=False)
        square, full = torch.zeros(num_effects, num_effects), covariance == "full"
        self.lower = nn.Parameter(square.repeat(num_clusters, 1, 1)) if full else None
        self.prior_lower = nn.Parameter(square, requires_grad=learn_prior) if full else None

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        if self.log_stretch is not None:  # weights of before there was a stretch have one that changes nothing
            state_dict.setdefault(f"{prefix}log_stretch", torch.zeros_like(self.log_stretch))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def train(self, mode: bool = True) -> RandomEffects:
        self._fold()
        return super().train(mode)

    @torch.no_grad()
    def _fold(self) -> None:
        """Put the stretch into the weights that it stretches, if an optimizer has changed it since."""
        if self.log_stretch is None or self.log_stretch._version == self._folded_version:
            return
        self.loc.mul_(self.log_stretch.exp())
        self.log_scale.add_(self.log_stretch)
        self.log_prior_scale.add_(self.log_stretch)
        self.log_stretch.zero_()
        self._folded_version = self.log_stretch._version

    def _stretched(self, effects: torch.Tensor) -> torch.Tensor:
        return effects if self.log_stretch is None else effects * self.log_stretch.exp()

    def _log_stretched(self, log_scale: torch.Tensor) -> torch.Tensor:
        return log_scale if self.log_stretch is None else log_scale + self.log_stretch

    def extra_repr(self) -> str:
        kind = f"learn_prior={self.learn_prior}, covariance={self.covariance!r}, sampling={self.sampling!r}"
        return f"{self.num_clusters}, {self.num_effects}, {kind}"

    def posterior(self, clusters: torch.Tensor | None = None) -> dist.TorchDistribution:
        """Posterior q(u) over the (C, Q) table of effects, or over its rows of the given ``clusters``."""
        index = slice(None) if clusters is None else clusters
        log_scale = self._log_stretched(self.log_scale)[index]
        return _normal(self.mean[index], log_scale, self._lower(index)).to_event(1)

    def _lower(self, clusters: torch.Tensor | slice) -> torch.Tensor | None:
        return None if self.lower is None else self.lower[clusters]

    def cluster_prior(self) -> dist.TorchDistribution:
        """Prior p(u) over the Q effects of one cluster, such as a new one."""
        log_scale = self._log_stretched(self.log_prior_scale)
        return _normal(torch.zeros_like(log_scale), log_scale, self.prior_lower)

    def prior(self) -> dist.TorchDistribution:
        """Prior p(u) over the (C, Q) table of effects."""
        return self.cluster_prior().expand([self.num_clusters]).to_event(1)

    def kl(self, estimate: bool = False) -> torch.Tensor:
        """
        KL(q(u) || p(u)) of Eq. 7 in nats, a scalar, summed over all effects of all clusters.

        Args:
            estimate: if True, and there are more than 1000 clusters, the sum is estimated from those of the last batch
                in training, so that its cost does not grow. The estimate and its gradient are unbiased once every
                cluster's share of the samples is known, after an epoch.
        """
        if estimate and self.samples_seen is not None:
            return self._estimated_kl(self.samples_seen)
        return self._kl_of(slice(None)).sum()

    def _kl_of(self, clusters: torch.Tensor | slice) -> torch.Tensor:
        """KL of each of some clusters."""
        # before the stretch, which changes nothing: of an effect without use its gradient is then 0, and no rounding
        posterior = _normal(self.loc[clusters], self.log_scale[clusters], self._lower(clusters))
        prior = _normal(torch.zeros_like(self.log_prior_scale), self.log_prior_scale, self.prior_lower)
        return kl_divergence(posterior, prior.expand(posterior.batch_shape))

    def _estimated_kl(self, seen: torch.Tensor) -> torch.Tensor:
        """
        Sum over all clusters from those of the last batch, each as often as it is in there by its share of all samples:
        so that likelihood and KL pull at the same rows, which a sum over others would leave to chance. What has been in
        no batch is drawn at random.
        """
        drawn = torch.randint(self.num_clusters, (KL_CLUSTERS,), device=self.loc.device)
        weight = (seen[drawn] == 0) * (self.num_clusters / KL_CLUSTERS)
        if self._batch is not None:
            known = self._batch >= 0
            index = self._batch.clamp(min=0)
            share = known * seen.sum() / seen[index].clamp(min=1) / known.sum().clamp(min=1)
            drawn, weight = torch.cat([drawn, index]), torch.cat([weight, share])
        return (self._kl_of(drawn) * weight.to(self.loc.dtype)).sum()

    @property
    def mean(self) -> torch.Tensor:
        """Posterior mean of each effect in each cluster, (C, Q)."""
        return self._stretched(self.loc)

    @property
    def scale(self) -> torch.Tensor:
        """Posterior s.d. of each effect in each cluster, (C, Q)."""
        return _deviation(self._log_stretched(self.log_scale), self.lower)

    @property
    def prior_scale(self) -> torch.Tensor:
        """Prior s.d. of each effect, (Q,): the variance components, as s.d., if the prior is learned."""
        return _deviation(self._log_stretched(self.log_prior_scale), self.prior_lower)

    def interval(self, level: float = 0.95) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Central credible interval of each effect.

        Args:
            level: posterior probability inside the interval, between 0 and 1.

        Returns:
            lower and upper ends, each (C, Q).
        """
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, got {level}.")
        half = self.scale * math.sqrt(2) * torch.erfinv(torch.tensor(level)).item()
        return self.mean - half, self.mean + half

    def forward(self, cluster: torch.Tensor, table: torch.Tensor | None = None, checked: bool = False) -> torch.Tensor:
        """
        Args:
            cluster: integer index (B,), -1 where the cluster is not known, or soft assignment (B, C).
            table: effects of all clusters (C, Q) to be used in place of the posterior's draw (in training) or mean
                (in evaluation); a draw made elsewhere, by Pyro for example.
            checked: whether it is known that no index is out of range, so that a GPU need not be waited for.

        Returns:
            effects of each sample, (B, Q); zero, the prior's mean, where the cluster is not known.

        Raises:
            ValueError: when the clusters are of another shape, or there is one that the layer does not have.
        """
        soft = cluster.is_floating_point()
        if not torch.jit.is_tracing() and cluster.shape[1:] != ((self.num_clusters,) if soft else ()):
            raise ValueError(
                f"clusters must be an integer index (B,) or a soft assignment (B, {self.num_clusters}), got a "
                f"{cluster.dtype} tensor of shape {tuple(cluster.shape)}."
            )
        given, sampled = table is not None, table is None and self.training
        whole_table = soft or (self.sampling == "cluster" and self.num_clusters <= MANY_CLUSTERS)
        if table is None:
            table = self.loc
            if sampled and whole_table:
                table = table + self._noise()
        if soft:
            effects = cluster.to(table.dtype) @ table
            return effects if given else self._stretched(effects)
        cluster = cluster.long()  # of small integer types some cannot index, and bytes would be taken for a mask
        if not checked:
            check_index(cluster, self.num_clusters, owner="the random effects have")
        index = cluster.clamp(min=0)
        effects = table[index]
        if self.training and self.samples_seen is not None:
            self._batch = cluster
            self.samples_seen.index_add_(0, index, (cluster >= 0).to(self.samples_seen.dtype))
        if sampled and not whole_table:
            effects = effects + self._noise(index, shared=self.sampling == "cluster")
        if not given:
            effects = self._stretched(effects)
        return effects * (cluster >= 0).unsqueeze(-1)

    def _noise(self, index: torch.Tensor | None = None, shared: bool = False) -> torch.Tensor:
        """
        A draw of the posterior less its mean, both before the stretch, for every cluster, or for each indexed one, the
        same wherever a cluster comes again if it is ``shared``. (Pyro's ``rsample`` fails under vmap.)
        """
        scale = self.log_scale if index is None else self.log_scale[index]
        noise = torch.randn_like(scale)
        if index is not None and shared:
            places = torch.arange(len(index), device=index.device)
            last = index.new_zeros(self.num_clusters).scatter_reduce(0, index, places, "amax")
            noise = noise[last[index]]
        lower = self._lower(slice(None) if index is None else index)
        return noise * scale.exp() if lower is None else (_tril(scale, lower) @ noise.unsqueeze(-1)).squeeze(-1)
