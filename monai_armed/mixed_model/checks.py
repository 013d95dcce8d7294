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

"""What a mixed model cannot tell apart: one sentence each, an error where no answer exists and else a warning."""

from __future__ import annotations

import warnings

import numpy as np

from .design import Design
from .marginal import Estimate
from .whitening import whitened_variances, whitening

__all__ = ["check_data", "check_fit"]

SINGULAR = 1e-4  # as in lme4's isSingular: an s.d. in units of the residual's, or of 1
SEPARATED = 10.0  # logits between the ends of a feature's middle range, or of a cluster's effect
POISSON = 1e4  # shape of a negative binomial from which on it is a Poisson distribution
UNSCALED = 1e3  # ratio of the largest to the smallest root mean square


def check_data(design: Design, likelihood: str) -> None:
    """
    Look at the data before a fit.

    Args:
        design: labels, fixed effects and factors.
        likelihood: ``"gaussian"``, ``"bernoulli"`` and so on.

    Raises:
        ValueError: when the labels do not fit the likelihood or do not vary, there are as many fixed effects as samples
            or a factor has one cluster, or the residual and random effects of Gaussian labels cannot be told apart: one
            sample a cluster, or as many effects as samples.

    Warns:
        UserWarning: of the same for other labels, of clusters of one factor that are those of another, and of features
            or labels of very different scale.
    """
    count = len(design.y)
    _check_labels(design, likelihood)
    if design.x.shape[1] >= count and np.linalg.matrix_rank(design.x) >= count:
        raise ValueError(f"there are {design.x.shape[1]} fixed effects and {count} samples: leave some of them out.")
    for factor in design.factors:
        seen, samples = np.unique(factor.cluster, return_counts=True)
        if len(seen) < 2:
            raise ValueError(f"the factor {factor.name!r} has one cluster: how clusters differ cannot be told.")
        effects = len(seen) * factor.z.shape[1]
        if samples.max() == 1:
            trouble = f"every cluster of the factor {factor.name!r} has one sample"
        elif effects >= count:
            trouble = f"the factor {factor.name!r} has {effects} effects and there are {count} samples"
        else:
            continue
        if likelihood == "gaussian":
            raise ValueError(f"{trouble}: its effects cannot be told from the residual, so leave some of them out.")
        if likelihood == "bernoulli":
            _warn(f"{trouble}: binary labels say nothing of such effects, whatever their s.d. comes out as.")
    for k, first in enumerate(design.factors):
        for second in design.factors[k + 1 :]:
            pairs = len(np.unique(np.stack([first.cluster, second.cluster]), axis=1).T)
            same = pairs == len(np.unique(first.cluster)) == len(np.unique(second.cluster))
            both = np.column_stack([first.z, second.z])  # of which all differ: independent terms of one factor
            if same and np.linalg.matrix_rank(both) < both.shape[1]:
                _warn(f"the factors {first.name!r} and {second.name!r} have the same clusters and effects: keep one.")
    columns = [("fixed effects", design.x), *((f"slopes of {f.name!r}", f.z) for f in design.factors)]
    for called, values in columns:
        size = np.sqrt((values**2).mean(0)) if values.size else np.ones(1)
        size = size[size > 0]
        if len(size) and size.max() / size.min() > UNSCALED:
            _warn(f"what the {called} act on differs in scale by a factor of {size.max() / size.min():.0f}: scale it.")
    spread = design.y.std()
    if likelihood == "gaussian" and (spread > UNSCALED or abs(design.y.mean()) > UNSCALED * spread):
        _warn(
            f"labels of mean {design.y.mean():.4g} and s.d. {spread:.4g} are far from the scale that gradient descent "
            "learns: train on (y - mean) / s.d."
        )


def _check_labels(design: Design, likelihood: str) -> None:
    y = design.y
    if np.ptp(y) == 0:
        raise ValueError(f"all labels are {y[0]:g}: there is nothing to fit.")
    trouble = {
        "bernoulli": ("0 or 1", ~np.isin(y, (0, 1))),
        "binomial": ("shares between 0 and 1, with the trials as weight", (y < 0) | (y > 1)),
        "poisson": ("counts", (y < 0) | (y != np.round(y))),
        "negative_binomial": ("counts", (y < 0) | (y != np.round(y))),
    }
    if likelihood in trouble:
        wanted, wrong = trouble[likelihood]
        if wrong.any():
            raise ValueError(f"labels of likelihood {likelihood!r} must be {wanted}, got {y[wrong][0]:g}.")
    successes = y * design.weight
    broken = abs(successes - np.round(successes)) > 1e-3
    if likelihood == "binomial" and broken.any():
        raise ValueError(
            "labels of likelihood 'binomial' are shares of as many trials as the weight says, got "
            f"{successes[broken][0]:g} successes: give the number of trials as weight."
        )
    if (design.weight <= 0).any():
        raise ValueError(f"weights must be positive, got {design.weight.min():g}: leave such samples out.")


def check_fit(design: Design, likelihood: str, fit: Estimate) -> None:
    """
    Look at a fit.

    Warns:
        UserWarning: of a singular fit (a variance component of 0, or a correlation of 1), of counts without
            overdispersion, and of separation: fixed effects of binary labels that grow without end.
    """
    unit = fit.residual or 1.0
    for factor, covariance in zip(design.factors, fit.covariances):
        values = whitened_variances(covariance, whitening(factor), unit)
        if values.min() < max(SINGULAR**2, 1e-6 * values.max()):
            _warn(
                f"singular fit: the effects of {factor.name!r} differ less between clusters than chance alone would "
                "have it, or correlate wholly, so that a variance component is 0; a simpler random part says as much."
            )
    if likelihood == "negative_binomial" and (fit.shape or 0) > POISSON:
        _warn(
            f"the shape is {fit.shape:.3g}: the counts vary no more than Poisson's, whose likelihood says as much, "
            "with standard errors."
        )
    if likelihood not in ("bernoulli", "binomial"):
        return
    for name, column, coefficient in zip(design.x_names, design.x.T, fit.coefficients):
        span = np.ptp(np.quantile(column, [0.05, 0.95])) or np.ptp(column)
        # an intercept by what it is beside the others: far from 0 where a feature is
        logits = abs(coefficient) * span if span else abs(float((design.x @ fit.coefficients).mean()))
        if logits > SEPARATED:
            _warn(
                f"the fixed effect {name!r} is {coefficient:.3g}, {logits:.0f} logits over its range: the labels are "
                "(nearly) separated by it, and its estimate says only that it is large."
            )


def _warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=4)
