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

"""What a fitted mixed model says, as weights of the network: its last layer, prior and posteriors."""

from __future__ import annotations

import numpy as np
import torch

from ..losses.likelihoods import GaussianLikelihoodLoss, NegativeBinomialLikelihoodLoss
from ..networks.layers.feature_layers import find_layer
from ..networks.layers.random_effects import RandomEffects
from ..networks.nets.armed import ARMED
from .marginal import Estimate, Moments

__all__ = ["write_effects", "write_head", "write_loss"]

SMALLEST = 1e-6  # s.d. of an effect that is nothing: the logarithm of 0 is no weight


@torch.no_grad()
def write_head(net: ARMED, coefficients: np.ndarray, fixed: str) -> None:
    """
    Set the last layer to fixed effects.

    Args:
        net: the network.
        coefficients: bias, if the layer has one, and weights; with ``fixed="offset"`` what is added to the bias.
        fixed: as in :py:func:`monai_armed.mixed_model.fit_mixed_model`.
    """
    head = find_layer(net.network, net.head)
    assert isinstance(head, torch.nn.Linear)
    values = torch.as_tensor(coefficients).to(head.weight)
    if head.bias is not None:
        head.bias.copy_(values[:1] + head.bias if fixed == "offset" else values[:1])
        values = values[1:]
    if fixed == "latent":
        head.weight.copy_(values.unsqueeze(0))


@torch.no_grad()
def write_effects(effects: RandomEffects, covariance: np.ndarray, moments: Moments) -> None:
    """
    Set the prior of a factor's effects to its variance components, and the posteriors to the effects given the data.
    The prior counts as learned from then on.

    Args:
        effects: the layer; where its covariance is diagonal, so is what it takes of the posteriors.
        covariance: variance components (Q, Q).
        moments: of every cluster.
    """
    effects.eval()  # with a learned prior, so that no stretch is left
    full = effects.covariance == "full"
    effects.loc.copy_(torch.as_tensor(moments.mean))
    prior, posterior = _cholesky(covariance[None], full)[0], _cholesky(moments.covariance, full)
    for name, tril in (("prior_", prior), ("", posterior)):
        scale = tril.diagonal(dim1=-2, dim2=-1)
        getattr(effects, f"log_{name}scale").copy_(scale.log())
        if full:
            getattr(effects, f"{name}lower").copy_((tril / scale.unsqueeze(-1)).tril(-1))
    effects.learn_prior = True
    effects.log_prior_scale.requires_grad_()
    if effects.prior_lower is not None:
        effects.prior_lower.requires_grad_()


@torch.no_grad()
def write_loss(loss: object, fit: Estimate) -> None:
    """Set the likelihood's own parameter, if the loss has one: the residual's s.d., or the shape of counts."""
    if isinstance(loss, GaussianLikelihoodLoss) and fit.residual is not None:
        loss.log_scale.fill_(float(np.log(fit.residual)))
    if isinstance(loss, NegativeBinomialLikelihoodLoss) and fit.shape is not None:
        loss.log_shape.fill_(float(np.log(fit.shape)))


def _cholesky(covariance: np.ndarray, full: bool) -> torch.Tensor:
    """Cholesky factors (C, Q, Q) of covariances, or the s.d. on a diagonal; both also where a variance is 0."""
    values = torch.as_tensor(covariance)
    variance = values.diagonal(dim1=-2, dim2=-1)
    if not full:
        return torch.diag_embed(variance.clamp(min=SMALLEST**2).sqrt())
    floor = (1e-9 * variance).clamp(min=SMALLEST**2)
    return torch.linalg.cholesky(values + torch.diag_embed(floor))
