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
Degrees of freedom of the fixed effects.

Few clusters tell the s.d. between clusters badly, so that an effect of what varies between clusters over its standard
error is Student's t, not normal. Of Gaussian labels its degrees of freedom are Satterthwaite's, from how well the
variance of the effect is known, as lmerTest has them (Kuznetsova, Brockhoff & Christensen 2017, Section 2.1,
https://doi.org/10.18637/jss.v082.i13). Of other labels, and where a variance component is 0, of which the curvature
tells nothing, they are those by containment, as SAS has them: the clusters less the fixed effects that the random
effects could take over.
"""

from __future__ import annotations

import numpy as np

from .design import Design, Factor
from .fixed_covariance import given_components
from .marginal import Estimate, MarginalLikelihood
from .standard_errors import moved

__all__ = ["contained_degrees", "degrees_of_freedom"]

STEP = 0.02  # of theta, for the derivatives of a variance
INSIDE = 1e-6  # share of a column's length that random effects may leave of it


def degrees_of_freedom(design: Design, marginal: MarginalLikelihood, fit: Estimate) -> np.ndarray:
    """
    Degrees of freedom of each fixed effect.

    Args:
        design: the design, without columns that follow from others.
        marginal: the likelihood that was maximised.
        fit: the fit of that design.

    Returns:
        (P,), infinite where the effect is as good as normal.
    """
    contained = contained_degrees(design)
    curvature = marginal.curvature(design, fit) if marginal.family == "gaussian" else None
    if curvature is None or not len(contained):
        return contained
    free, theta = curvature.free, curvature.theta

    def variance(values: np.ndarray) -> np.ndarray:
        return np.diag(given_components(design, marginal.family, moved(fit, free, values)))

    steps = STEP * np.eye(len(theta))
    slope = np.stack([(variance(theta + step) - variance(theta - step)) / (2 * STEP) for step in steps], 1)
    uncertainty = np.einsum("pi,ij,pj->p", slope, curvature.covariance, slope)
    found = 2 * variance(theta) ** 2 / uncertainty.clip(min=1e-300)
    known = sum(kind == "variance" for kind, _, _ in free)
    return found if known == sum(len(v) for v in fit.variances) else np.minimum(found, contained)


def contained_degrees(design: Design) -> np.ndarray:
    """
    Degrees of freedom by containment, (P,): for each random effect in whose span a fixed effect is (of an intercept
    what does not vary within clusters, of a slope its column), the clusters less the fixed effects in that span, at
    least 1; the fewest of all, and infinite without one.
    """
    degrees = np.full(design.x.shape[1], np.inf)
    for factor in design.factors:
        for column in factor.z.T:
            inside, clusters = _inside(design.x, factor, column)
            degrees[inside] = np.minimum(degrees[inside], max(clusters - int(inside.sum()), 1))
    return degrees


def _inside(x: np.ndarray, factor: Factor, column: np.ndarray) -> tuple[np.ndarray, int]:
    """Which columns (P,) are a multiple of the random effect's in every cluster, and clusters that have the effect."""
    squares = np.bincount(factor.cluster, column**2, factor.num_clusters)
    size = np.where(squares > 0, squares, 1.0)
    left = [v - (np.bincount(factor.cluster, column * v, len(size)) / size)[factor.cluster] * column for v in x.T]
    inside = np.array([np.linalg.norm(rest) < INSIDE * np.linalg.norm(v) for rest, v in zip(left, x.T)], bool)
    return inside, int((squares > 0).sum())
