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

"""Covariances of random effects that hold the variance components' uncertainty, too.

By the law of total variance, Var(u) = E[Var(u | theta)] + Var(E[u | theta]) over theta ~ N(theta^, Var(theta)), with a
mean over 2 K points at theta^ and sqrt(K) times each column of a root of Var(theta) to either side, which is exact for
what is linear or quadratic in theta (Julier and Uhlmann 2004, https://doi.org/10.1109/JPROC.2003.823141).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .design import Design
from .gpboost_fit import Estimate, Moments, moments
from .standard_errors import moved, theta_curvature

__all__ = ["FEW_CLUSTERS", "with_component_errors"]

FEW_CLUSTERS = 200  # with more the components are known well enough
FARTHEST = 2.0  # change of a logarithm of a variance at most: what is nearly 0 has no curvature to go by


def with_component_errors(
    design: Design, likelihood: str, fit: Estimate, restricted: bool, given: Sequence[Moments]
) -> list[Moments]:
    """
    Moments of the random effects whose covariances count fixed effects and variance components as unknown.

    Args:
        design: the design.
        likelihood: of the labels.
        fit: the fit.
        restricted: whether it is REML's.
        given: moments with the components as they are, and the fixed effects unknown.

    Returns:
        the moments, with the means of ``given``; those given where the likelihood has no curvature to go by, or every
        factor has more than :py:data:`FEW_CLUSTERS` clusters.
    """
    few = min(len(np.unique(factor.cluster)) for factor in design.factors) <= FEW_CLUSTERS
    curvature = theta_curvature(design, likelihood, fit, restricted) if few else None
    if curvature is None:
        return list(given)
    count = len(curvature.theta)
    root = np.linalg.cholesky(curvature.covariance) * np.sqrt(count)
    logs = np.array([kind != "lower" for kind, _, _ in curvature.free])
    steps = [np.where(logs, np.clip(step, -FARTHEST, FARTHEST), step) for step in (*root.T, *-root.T)]
    known = design.x.shape[1] > 0
    found = [
        moments(design, likelihood, moved(fit, curvature.free, curvature.theta + step), diffuse=known) for step in steps
    ]
    wide = []
    for k, own in enumerate(given):
        shift = np.stack([each[k].mean - own.mean for each in found])
        between = np.einsum("sci,scj->cij", shift, shift) / len(steps)
        wide.append(own._replace(covariance=np.mean([each[k].covariance for each in found], 0) + between))
    return wide
