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

"""
Covariance matrix of the fixed effects: (X^T V^-1 X)^-1 with V = W^-1 + Z T T^T Z^T, where W are the weights of the
labels, over the residual's variance if they are Gaussian, and else those of iterated least squares at the modes of the
random effects, as lme4 has them (Bates et al. 2015, Section 2.4 of https://doi.org/10.18637/jss.v067.i01).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csc_matrix, csr_matrix, eye, hstack
from scipy.sparse.linalg import splu
from scipy.special import expit

from .design import Design
from .marginal import Estimate, MarginalLikelihood, Moments

__all__ = ["fixed_covariance", "given_components"]


def fixed_covariance(
    design: Design, marginal: MarginalLikelihood, fit: Estimate, modes: Sequence[Moments]
) -> np.ndarray:
    """
    Covariance matrix of the fixed effects.

    Args:
        design: the design, without columns that follow from others.
        marginal: the likelihood that was maximised.
        fit: the fit of that design.
        modes: of each factor's random effects.

    Returns:
        (P, P); with the uncertainty of the variance components, as the fit's standard errors have it, whose squares are
        the diagonal.
    """
    covariance = given_components(design, marginal.family, fit, modes)
    curvature = None if marginal.family == "gaussian" else marginal.curvature(design, fit)
    if curvature is not None:
        covariance = covariance + curvature.slope @ curvature.covariance @ curvature.slope.T
    scale = fit.errors / np.sqrt(np.diag(covariance))
    return covariance * np.outer(scale, scale)


def given_components(design: Design, family: str, fit: Estimate, modes: Sequence[Moments] = ()) -> np.ndarray:
    """The same with the variance components as if they were known; Gaussian labels need no modes."""
    weight = _weights(design, family, fit, modes)
    parts = []
    for factor, low, variance in zip(design.factors, fit.lower, fit.variances):
        values, size = factor.z @ (low * np.sqrt(variance)), len(variance)
        columns = factor.cluster[:, None] * size + np.arange(size)
        rows = np.repeat(np.arange(len(values)), size)
        shape = (len(values), factor.num_clusters * size)
        parts.append(csr_matrix((values.reshape(-1), (rows, columns.reshape(-1))), shape))
    root = np.sqrt(weight)[:, None]
    z, x = csc_matrix(hstack(parts).multiply(root)), design.x * root
    cross = z.T @ x
    information = x.T @ x - cross.T @ splu(csc_matrix(z.T @ z + eye(z.shape[1]))).solve(cross)
    return np.linalg.inv(information)


def _weights(design: Design, family: str, fit: Estimate, modes: Sequence[Moments]) -> np.ndarray:
    """Of each sample: the inverse of its variance on the scale of the linear predictor."""
    if fit.residual is not None:
        return design.weight / fit.residual**2
    eta = design.offset + design.x @ fit.coefficients
    for factor, of_each in zip(design.factors, modes):
        eta = eta + (factor.z * of_each.mean[factor.cluster]).sum(1)
    if family in ("bernoulli", "binomial"):
        return design.weight * expit(eta) * expit(-eta)
    mean = np.exp(eta)
    return design.weight * mean / (1 + (0.0 if fit.shape is None else mean / fit.shape))
