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

"""The mixed model of a trained network's features, fitted by maximum likelihood and written back into it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..losses.armed_loss import ARMEDLoss
from ..networks.nets.armed import ARMED
from .checks import check_data, check_fit
from .design import Design, read_design
from .fitted import MixedModelFit
from .gaussian_fit import GaussianLikelihood
from .gpboost_fit import GPBoostLikelihood
from .gpboost_model import LIKELIHOODS
from .marginal import Estimate, MarginalLikelihood
from .quadrature_fit import QuadratureLikelihood, check_quadrature
from .standard_errors import with_full_errors
from .write_back import write_effects, write_head, write_loss

__all__ = ["fit_mixed_model"]

METHODS = ("ML", "REML", "Laplace", "quadrature")
POINTS = {1: 25, 2: 11, 3: 7}  # of quadrature for so many effects, unless said otherwise


def fit_mixed_model(
    net: ARMED,
    loader: Iterable[Mapping[str, Any]],
    method: str = "ML",
    likelihood: str | torch.nn.Module | None = None,
    fixed: str = "latent",
    quadrature_points: int | None = None,
    prepare_batch: Callable | None = None,
    feature_names: Sequence[str] | None = None,
) -> MixedModelFit:
    """
    Finish a trained network exactly: its latent is the design matrix of a mixed model, whose fixed effects (the last
    layer), variance components and random effects are fitted jointly by maximum likelihood, and written back into the
    last layer, prior and posteriors. Training gives the features; this is what lme4 would say of them. The network's
    own posterior treats the factors as independent of one another and the variance components as a bound's; here
    neither is so. Needs GPBoost: ``pip install "monai_armed[mixed]"``.

    Args:
        net: a trained network with one logit and a linear last layer. It is changed.
        loader: batches of its training data.
        method: ``"ML"`` or ``"REML"`` for Gaussian labels; for others ``"Laplace"``, as lme4 by default, or
            ``"quadrature"``, by which up to three effects of one factor are integrated out as well as exactly: for
            binary labels, counts of few, or many clusters, where Laplace's s.d. are too small or too large.
        likelihood: ``"gaussian"``, ``"bernoulli"``, ``"binomial"`` (shares, the trials as weight), ``"poisson"`` or
            ``"negative_binomial"``, or the loss of the training, such as ``BCEWithLogitsLoss``; a
            ``GaussianLikelihoodLoss`` is given the residual's s.d., a ``NegativeBinomialLikelihoodLoss`` the shape. By
            default Gaussian for ML and REML, and else Bernoulli.
        fixed: ``"latent"``: the fixed effects are fitted anew, on what the last layer sees; ``"offset"``: the fixed
            logits are kept but for an intercept, which suits a latent that is wide for the number of samples.
        quadrature_points: nodes of adaptive quadrature for each effect, lme4's ``nAGQ``; 1 is Laplace. By default 25,
            11 or 7 for one, two or three effects, after which the s.d. change by a percent at most.
        prepare_batch: as for a trainer; by default :py:class:`monai_armed.engines.PrepareBatchCluster`. Its
            targets ``"offset"`` and ``"weight"`` count: ``PrepareBatchCluster(target_keys=["offset"])``.
        feature_names: names of the network's input features.

    Returns:
        the fit: print it, or see its ``fixef``, ``VarCorr``, ``ranef``, ``log_likelihood``.

    Raises:
        ValueError: when the arguments do not go together, or the data cannot tell the effects apart.
        OptionalImportError: when GPBoost is not installed.

    Example:
        >>> print(fit_mixed_model(net, train_loader, method="REML"))
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}.")
    loss: Any = likelihood.loss if isinstance(likelihood, ARMEDLoss) else likelihood
    family = _family(loss, method)
    _check_points(quadrature_points, family, method)
    design = read_design(net, loader, fixed, prepare_batch, feature_names)
    check_data(design, family)
    if family == "binomial" and (design.weight == 1).all():
        family = "bernoulli"  # shares of one trial
    kept = _independent(design.x)
    reduced = design._replace(x=design.x[:, kept], x_names=[n for n, k in zip(design.x_names, kept) if k])
    marginal = _marginal(reduced, method, family, quadrature_points)
    found = marginal.estimate(reduced)
    if family != "gaussian":
        found = with_full_errors(found, marginal.curvature(reduced, found))
    conditional = marginal.modes(reduced, found)
    unconditional = marginal.moments(reduced, found)
    check_fit(reduced, family, found)
    full = _with_dropped(found, kept)
    write_head(net, np.nan_to_num(full.coefficients), fixed)
    for factor, covariance, of_each in zip(design.factors, found.covariances, conditional):
        write_effects(net.random_slopes[factor.name].effects, covariance, of_each)
    write_loss(loss, found)
    return MixedModelFit(method, marginal, design, reduced, full, conditional, unconditional)


def _check_points(points: int | None, family: str, method: str) -> None:
    if points is not None and (points < 1 or (points > 1 and family == "gaussian")):
        raise ValueError(
            f"quadrature_points must be 1, or more with method='Laplace' or 'quadrature', got {points} with {method!r}."
        )


def _marginal(design: Design, method: str, family: str, points: int | None) -> MarginalLikelihood:
    if family == "gaussian" and len(design.factors) == 1:
        return GaussianLikelihood(method == "REML")
    if points == 1 or (points is None and method != "quadrature"):
        return GPBoostLikelihood(family, method == "REML")
    check_quadrature(design, family)
    return QuadratureLikelihood(family, points or POINTS[design.factors[0].z.shape[1]])


def _family(likelihood: str | torch.nn.Module | None, method: str) -> str:
    gaussian = method in ("ML", "REML")
    if likelihood is None:
        return "gaussian" if gaussian else "bernoulli"
    families = {"MSELoss": "gaussian", "BCEWithLogitsLoss": "bernoulli"}
    name = likelihood if isinstance(likelihood, str) else families.get(type(likelihood).__name__)
    name = getattr(likelihood, "family", name)
    if name == "ordinal":
        raise ValueError("there is no exact fit of ordinal labels: read the trained network by monai_armed.metrics.")
    if name not in LIKELIHOODS:
        raise ValueError(f"likelihood must be one of {list(LIKELIHOODS)} or a loss for one, got {likelihood!r}.")
    if (name == "gaussian") != gaussian:
        wanted = "'ML' or 'REML'" if name == "gaussian" else "'Laplace' or 'quadrature'"
        raise ValueError(f"the method for likelihood {name!r} is {wanted}, got {method!r}.")
    return name


def _independent(x: np.ndarray) -> np.ndarray:
    """Which columns do not follow from those before them, (P,) bool: a dead unit, or a copy of another, does."""
    kept = np.zeros(x.shape[1], bool)
    basis = np.zeros((len(x), 0))
    for k, column in enumerate(x.T):
        length = np.linalg.norm(column)
        rest = column / length if length > 0 else column
        for _ in range(2):  # twice is enough for orthogonality in floating point
            rest = rest - basis @ (basis.T @ rest)
        size = np.linalg.norm(rest)
        if length > 0 and size > 1e-7:
            kept[k] = True
            basis = np.column_stack([basis, rest / size])
    return kept


def _with_dropped(fit: Estimate, kept: np.ndarray) -> Estimate:
    """The fit with NaN for fixed effects that were left out."""
    values = []
    for old in (fit.coefficients, fit.errors):
        new = np.full(len(kept), np.nan)
        new[kept] = old
        values.append(new)
    return fit._replace(coefficients=values[0], errors=values[1])
