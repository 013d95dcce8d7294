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

"""Effects in units that depend neither on the location nor on the scale of what they are multiplied with."""

from __future__ import annotations

import numpy as np

from .design import Factor

__all__ = ["column_size", "decorrelated", "entries", "lower_triangle", "whitened_variances", "whitening"]

FOLLOWS = 1e-6  # share of a column's length below which it follows from the others
NOTHING = 1e-10  # variance, in units of the residual's or of logits, that is none


def column_size(z: np.ndarray) -> np.ndarray:
    """Root mean square of each column of (N, Q), never 0."""
    return np.sqrt((z**2).mean(0)).clip(min=1e-12)


def whitened_variances(covariance: np.ndarray, turn: np.ndarray, unit: float) -> np.ndarray:
    """
    Variances (Q,) along the axes of a covariance (Q, Q), from the smallest on, in units of :py:func:`whitening`: in
    these a feature far from 0 does not make any fit look singular.
    """
    back = np.linalg.inv(turn) / unit
    return np.linalg.eigvalsh(back @ covariance @ back.T)


def whitening(factor: Factor) -> np.ndarray:
    """
    A lower triangle A (Q, Q) such that the columns of z A have mean square 1 and, where effects correlate, are
    orthogonal: the last one, the intercept, stays, and the others are centred. With u = A v a model of correlated
    effects u is the same model of effects v, whatever is added to a column beside an intercept. The first effect of u
    is a multiple of the first of v.
    """
    size = factor.z.shape[1]
    turn = np.diag(1 / np.where((length := np.sqrt((factor.z**2).mean(0))) > 0, length, 1.0))
    if not factor.correlated:
        return turn
    for j in reversed(range(size - 1)):
        column = turn[:, j].copy()
        for _ in range(2):  # twice is enough for orthogonality in floating point
            after = factor.z @ turn[:, j + 1 :]
            column -= turn[:, j + 1 :] @ (after.T @ (factor.z @ column)) / len(after)
        left = np.sqrt(((factor.z @ column) ** 2).mean())
        if left > FOLLOWS:
            turn[:, j] = column / left
    return turn


def entries(factor: Factor) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of what is free in a Cholesky factor: its lower triangle, or its diagonal."""
    rows, columns = np.tril_indices(factor.z.shape[1])
    free = (rows == columns) | factor.correlated
    return rows[free], columns[free]


def lower_triangle(factor: Factor, values: np.ndarray) -> np.ndarray:
    """The Cholesky factor (Q, Q) of its free entries."""
    tril = np.zeros((factor.z.shape[1],) * 2)
    tril[entries(factor)] = values
    return tril


def decorrelated(covariance: np.ndarray, factor: Factor, unit: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """
    Unit lower triangle and variances of a covariance; an effect whose variance is none correlates with none.

    Args:
        covariance: of the effects, (Q, Q).
        factor: the factor.
        unit: s.d. of the residual, or 1 logit.
    """
    size = column_size(factor.z) / unit
    covariance = covariance.copy()
    dead = np.diag(covariance) * size**2 < NOTHING
    covariance[dead], covariance[:, dead] = 0.0, 0.0
    if not factor.correlated:
        return np.eye(len(size)), np.diag(covariance).copy()
    floor = 1e-12 * np.diag(covariance) + NOTHING**2 / size**2
    root = np.linalg.cholesky(covariance + np.diag(floor))
    return root / np.diag(root), np.diag(root) ** 2
