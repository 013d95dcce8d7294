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
The exact likelihood of Gaussian labels with one grouping factor, and its derivative by the covariance of the effects.

The labels are x beta + z T v + e, with v of each cluster N(0, s^2 I) and e N(0, s^2 / weight). The clusters are
independent, so that sums over each are all that is needed (Bates et al. 2015, Equations 32 to 41,
https://doi.org/10.18637/jss.v067.i01): beta and s are in closed form, and T is searched for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from .design import Design

__all__ = ["GaussianModel", "GaussianPoint"]


class GaussianPoint(NamedTuple):
    """Log-likelihood at a T, s and beta there; derivatives by T T^T and by log s; covariance of beta / s^2."""

    log_likelihood: float
    residual: float  # s.d. s
    coefficients: np.ndarray  # (P,)
    slope: np.ndarray  # (Q, Q)
    residual_slope: float
    spread: np.ndarray  # (P, P)


class GaussianModel:
    """
    The sums over each cluster, and what follows from them for a T.

    Args:
        design: a design of one factor, whose fixed effects' columns do not follow from one another.
        restricted: whether the likelihood is the restricted one (REML).
        turn: T is that of z times this matrix (Q, Q); by default of z.
    """

    def __init__(self, design: Design, restricted: bool, turn: np.ndarray | None = None) -> None:
        factor, root = design.factors[0], np.sqrt(design.weight)[:, None]
        z = (factor.z if turn is None else factor.z @ turn) * root
        q, self.r = np.linalg.qr(design.x * root)  # orthogonal columns, so that no digits are lost
        y = (design.y - design.offset) * root[:, 0]
        self.first = q.T @ y
        y = y - q @ self.first
        count = len(y)
        self.degrees = count - q.shape[1] * restricted
        self.restricted = restricted
        self.constant = np.log(design.weight).sum() / 2 - restricted * np.log(np.abs(np.diag(self.r))).sum()
        of_cluster = csr_matrix((np.ones(count), (factor.cluster, np.arange(count))), (factor.num_clusters, count))
        size = z.shape[1]
        self.zz = (of_cluster @ (z[:, :, None] * z[:, None]).reshape(count, -1)).reshape(-1, size, size)
        self.zx = np.stack([of_cluster @ (z * column[:, None]) for column in q.T] or [np.zeros((0, 0))], -1)
        self.zx = self.zx if q.shape[1] else np.zeros((factor.num_clusters, size, 0))
        self.zy = of_cluster @ (z * y[:, None])
        self.yy = float(y @ y)

    def _by_cluster(self, tril: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cholesky factor K of 1 + T^T z^T z T, and the inverse of K times T^T."""
        root = np.linalg.cholesky(np.eye(tril.shape[1]) + tril.T @ self.zz @ tril)
        return root, np.linalg.solve(root, np.broadcast_to(tril.T, (len(root), *tril.T.shape)))

    def at(self, tril: np.ndarray, residual: float | None = None) -> GaussianPoint:
        """Likelihood with a T (Q, R); the residual's s.d. is the best one unless it is given."""
        root, half = self._by_cluster(tril)
        wide, of_x, of_y = half @ self.zz, half @ self.zx, np.einsum("crq,cq->cr", half, self.zy)
        information = np.eye(len(self.first)) - np.einsum("crp,crs->ps", of_x, of_x)
        spread = np.linalg.inv(information)
        moved = -np.einsum("crp,cr->p", of_x, of_y)
        beta = spread @ moved
        squares = self.yy - float((of_y**2).sum()) - float(beta @ moved)
        variance = max(squares, 1e-30) / self.degrees if residual is None else residual**2
        value = self.constant - np.log(root.diagonal(axis1=1, axis2=2)).sum()
        value -= (self.degrees * np.log(2 * np.pi * variance) + squares / variance) / 2
        left = self.zy - self.zx @ beta - np.einsum("crq,cr->cq", wide, of_y - of_x @ beta)
        slope = left.T @ left / variance - self.zz.sum(0) + np.einsum("crq,crs->qs", wide, wide)
        if self.restricted:
            value -= np.linalg.slogdet(information)[1] / 2
            apart = self.zx - wide.transpose(0, 2, 1) @ of_x
            slope += np.einsum("cqp,ps,crs->qr", apart, spread, apart)
        back = np.linalg.inv(self.r)
        coefficients = back @ (beta + self.first)
        by_residual = squares / variance - self.degrees
        return GaussianPoint(
            float(value), float(np.sqrt(variance)), coefficients, slope / 2, by_residual, back @ spread @ back.T
        )

    def effects(self, tril: np.ndarray, coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of z's effects given T, s and beta: mean (C, Q), covariance / s^2 (C, Q, Q), the mean's slope (C, Q, P)."""
        _, half = self._by_cluster(tril)
        covariance = half.transpose(0, 2, 1) @ half
        mean = np.einsum("cqr,cr->cq", covariance, self.zy - self.zx @ (self.r @ coefficients - self.first))
        return mean, covariance, -covariance @ self.zx @ self.r
