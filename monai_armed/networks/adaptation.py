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

"""A new cluster of a trained network, from a few of its samples."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Mapping

import torch
import torch.nn as nn

from ..losses.armed_loss import ARMEDLoss
from ..utils.parallel import unwrap
from .layers.random_effects import RandomEffects
from .nets.armed import ARMED
from .new_cluster_posterior import features_of, infer, share_told

__all__ = ["adapt"]

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

LEAST_TOLD = 0.5  # of what the prior leaves open; with less a third of new clusters are predicted worse than before


def adapt(
    net: ARMED,
    x: torch.Tensor,
    label: torch.Tensor | None = None,
    loss: Loss | None = None,
    steps: int = 300,
    num_draws: int = 16,
    seed: int = 0,
    factor: str | None = None,
    cluster: Mapping[str, torch.Tensor] | None = None,
) -> ARMED:
    """
    Let a network know a new cluster from a few of its samples: a posterior is found for the random effects of that
    cluster alone, all else stays as it is. With labels that is variational inference (Eq. 7 of
    https://arxiv.org/abs/2202.11783 for one more cluster) from the network's prior; the features are computed once.
    Slopes and intercepts are adapted alike. Without labels it is what the Z-predictor says of the samples: mean and
    variance of the mixture of the seen clusters' posteriors, weighted by the mean assignment.

    Labels too few to help are told by a warning: where they take away less than half of the variance that a cluster's
    logits have under the prior, so that a third of such clusters or more would be predicted worse than before.

    Args:
        net: a trained network with random effects, also inside ``DistributedDataParallel``. It is not changed.
        x: samples of the new cluster, (n, *input_shape).
        label: their labels, as ``loss`` wants them, or (n,) for one logit; None if there are none.
        loss: mean loss of logits and labels in nats, the negative log-likelihood of a sample, as in training: for
            example ``torch.nn.BCEWithLogitsLoss()`` or a trained ``GaussianLikelihoodLoss``. Needed with labels.
        steps: steps of the inference, which starts at the mode with the curvature there (Laplace's approximation).
        num_draws: draws of the effects in each step.
        seed: seed of the draws.
        factor: which factor has the new cluster, such as ``"subject"``; by default the network's first.
        cluster: what is known of the samples' clusters of the other factors, such as ``{"site": site}``; what is not
            given counts as the population.

    Returns:
        a copy of the network, in evaluation mode, that has one more cluster of the factor, the last, of index
        ``net.factors[factor]``. It has no adversary, which would know the old clusters only.

    Raises:
        ValueError: when the factor has no random effects, no samples, values that are not finite, labels of another
            number or without a loss that is a mean, or neither labels nor a Z-predictor of the factor.

    Example:
        >>> adapted = adapt(net, images, labels, torch.nn.BCEWithLogitsLoss())
        >>> adapted(new_images, torch.full((len(new_images),), net.num_clusters))
    """
    net = unwrap(net)
    factor = net.clusters.first if factor is None else factor
    _check_samples(net, x, label, factor)
    slopes = net.random_slopes[factor]
    if label is None:
        loc, tril = _mixture(slopes.effects, net.clusters.infer(x).mean(0))
    else:
        features = features_of(net, x, factor, cluster)
        error = checked_error(loss, features.fixed, label)
        loc, tril = infer(slopes, features, label, error, steps, num_draws, seed)
        _warn_of_few_labels(share_told(slopes, features, label, error, loc), len(label))
    return _with_one_more_cluster(net, factor, loc, tril)


def _check_samples(net: ARMED, x: torch.Tensor, label: torch.Tensor | None, factor: str) -> None:
    """Whether the network can be adapted with these samples."""
    if not len(net.random_slopes):
        raise ValueError("the network has no random effects to adapt: build it with slopes or an intercept.")
    if factor not in net.random_slopes:
        raise ValueError(f"the network has random effects of {list(net.random_slopes)}, not of the factor {factor!r}.")
    if len(x) == 0:
        raise ValueError("adapt needs at least one sample of the new cluster, got none.")
    for name, values in (("x", x), ("label", label)):
        if isinstance(values, torch.Tensor) and not bool(values.isfinite().all()):
            raise ValueError(f"{name} has values that are not finite, such as NaN: leave these samples out.")
    if label is not None and len(label) != len(x):
        raise ValueError(f"got {len(x)} samples and {len(label)} labels.")
    first = net.clusters.first
    if label is None and (net.z_predictor is None or factor != first):
        raise ValueError(
            f"without labels only a Z-predictor can tell what a new {factor} is like, and none is attached (it is for "
            f"the factor {first!r}): pass `label`, call attach_z_predictor, or predict with unknown='population'."
        )


def checked_error(loss: Loss | None, fixed: torch.Tensor, label: torch.Tensor) -> ARMEDLoss:
    """The loss, with labels (n,) taken for those of one logit, if it is a mean over samples."""
    if loss is None:
        raise ValueError("labels need a loss: pass the base loss of the training, such as BCEWithLogitsLoss().")
    if isinstance(loss, ARMEDLoss):
        raise ValueError(
            f"{type(loss).__name__} is for all outputs of training, here are logits alone: pass its base loss, "
            "`loss.loss`."
        )
    error = ARMEDLoss(loss)
    value = error.terms(fixed, {"label": label})["fixed"]
    if value.ndim:
        raise ValueError(
            f"the loss must be the mean over the samples, one number, got {tuple(value.shape)}: use reduction='mean'."
        )
    return error


def _mixture(effects: RandomEffects, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (Q,) and Cholesky factor (Q, Q) of the mixture of posteriors and, for what is left of 1, the prior."""
    posterior, prior = effects.posterior(), effects.cluster_prior()
    table = posterior.mean.detach()
    weight = weight.to(table.dtype)
    rest, loc = (1 - weight.sum()).clamp(min=0), weight @ table
    if effects.covariance == "full":
        second = posterior.base_dist.covariance_matrix.detach() + torch.einsum("ci,cj->cij", table, table)
        covariance = torch.einsum("c,cij->ij", weight, second) + rest * prior.covariance_matrix.detach()
        return loc, torch.linalg.cholesky(covariance - torch.outer(loc, loc))
    square = weight @ (posterior.variance + table.square()) + rest * prior.variance
    return loc, (square.detach() - loc.square()).sqrt().diag()


def _warn_of_few_labels(told: float, count: int) -> None:
    if not told < LEAST_TOLD:
        return
    ratio = max(told, 0.0) / (1 - max(told, 0.0))  # if clusters differ as the prior says
    worse = 0.5 - math.atan(math.sqrt(ratio) / 2) / math.pi
    warnings.warn(
        f"{count} labelled samples tell {max(told, 0.0):.0%} of what the prior leaves open of a new cluster: about "
        f"{worse:.0%} of such clusters are predicted worse than by unknown='population'; label more samples.",
        stacklevel=3,
    )


def _with_one_more_cluster(net: ARMED, factor: str, loc: torch.Tensor, tril: torch.Tensor) -> ARMED:
    adapted = copy.deepcopy(net).eval()  # which folds the stretch of a learned prior into its weights
    adapted.adversary, adapted.feature_layers = None, ()
    adapted.factors[factor] += 1
    effects = adapted.random_slopes[factor].effects
    effects.num_clusters += 1
    if effects.samples_seen is not None:
        effects.samples_seen = nn.functional.pad(effects.samples_seen, (0, 1))
    scale = tril.diagonal()
    rows = {"loc": loc, "log_scale": scale.log()}
    if effects.covariance == "full":
        rows["lower"] = tril / scale.unsqueeze(1)
    for name, row in rows.items():
        old = getattr(effects, name)
        setattr(
            effects, name, nn.Parameter(torch.cat([old.detach(), row.detach().to(old).unsqueeze(0)]), old.requires_grad)
        )
    return adapted
