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
Adaptive Gauss-Hermite quadrature: the likelihood of a factor's few effects, integrated out, and its derivatives.

The logits of a sample are offset + x beta + z T v, with T a lower triangle and v of each cluster N(0, I). The integral
over v is a sum over the nodes of a grid, laid around the mode of v given the labels and as wide as the curvature there
has it (Pinheiro and Bates 1995, https://doi.org/10.1080/10618600.1995.10474663). The logits are linear in beta and T
for a given v, so that gradient and information follow from the scores at the nodes by Fisher's and Louis's identities
(Louis 1982, https://doi.org/10.1111/j.2517-6161.1982.tb01203.x).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from .design import Design

__all__ = ["FAMILIES", "ClusterMoments", "QuadratureModel"]

FAMILIES = ("bernoulli", "binomial", "poisson")  # of concave log-density: every cluster has one mode
NEWTON_STEPS, HALVINGS = 50, 30
PRECISE = 1e-9  # of the modes, and of log-densities
CHUNK = 2**18  # nodes x samples at a time


class ClusterMoments(NamedTuple):
    """Of v: mode and its curvature's inverse, mean and covariance; and how the mean moves with the fixed effects."""

    mode: torch.Tensor  # (C, Q)
    curvature: torch.Tensor  # (C, Q, Q)
    mean: torch.Tensor  # (C, Q)
    covariance: torch.Tensor  # (C, Q, Q)
    slope: torch.Tensor  # (C, Q, P)


class _Part(NamedTuple):
    """Some clusters' nodes: of each node its share of the integral, of each node and sample the slopes of its logit."""

    clusters: slice
    samples: slice
    cluster: torch.Tensor  # (n,), from 0
    nodes: torch.Tensor  # (c, K, Q), values of v
    share: torch.Tensor  # (c, K)
    first: torch.Tensor  # (n, K)
    second: torch.Tensor  # (n, K), less the second derivative
    log_integral: torch.Tensor  # (c,)


def _log_density(family: str, y: torch.Tensor, eta: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    if family == "poisson":
        return weight * (y * eta - eta.exp() - torch.lgamma(y + 1))
    value = weight * (y * eta - torch.nn.functional.softplus(eta))
    if family == "binomial":  # proportions of `weight` trials
        k = weight * y
        value = value + torch.lgamma(weight + 1) - torch.lgamma(k + 1) - torch.lgamma(weight - k + 1)
    return value


def _slopes(family: str, y: torch.Tensor, eta: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """First derivative of the log-density by eta, and less the second."""
    if family == "poisson":
        mean = eta.exp()
        return weight * (y - mean), weight * mean
    p = eta.sigmoid()
    return weight * (y - p), weight * p * (1 - p)


class QuadratureModel:
    """
    The marginal likelihood of a design of one factor. Its parameters are the fixed effects and then those entries of T
    that are free, row by row: the lower triangle, or the diagonal of effects that do not correlate.

    Args:
        design: a design of one factor.
        family: one of :py:data:`FAMILIES`.
        points: number of nodes for each effect.
    """

    def __init__(self, design: Design, family: str, points: int) -> None:
        factor = design.factors[0]
        self.family, self.num_clusters, self.num_effects = family, factor.num_clusters, factor.z.shape[1]
        order = np.argsort(factor.cluster, kind="stable")
        arrays = (design.y, design.x, design.offset, design.weight, factor.z)
        self.y, self.x, self.offset, self.weight, self.z = (torch.as_tensor(a[order]).double() for a in arrays)
        self.cluster = torch.as_tensor(factor.cluster[order])
        rows, columns = np.tril_indices(self.num_effects)
        free = (rows == columns) | factor.correlated
        self.rows, self.columns = rows[free], columns[free]
        nodes, weights = np.polynomial.hermite_e.hermegauss(points)
        self.nodes = torch.tensor(list(itertools.product(nodes, repeat=self.num_effects)), dtype=torch.double)
        logs = np.log(weights) - math.log(2 * math.pi) / 2 + nodes**2 / 2  # less the normal density of the nodes
        self.log_weights = torch.tensor(list(itertools.product(logs, repeat=self.num_effects))).sum(1)
        self.ends = self._chunks()
        self.mode = torch.zeros(self.num_clusters, self.num_effects, dtype=torch.double)

    def _chunks(self) -> list[tuple[int, int]]:
        """Ends of the chunks, in clusters and in samples."""
        samples = np.bincount(self.cluster.numpy(), minlength=self.num_clusters).cumsum()
        size = (samples + np.arange(1, self.num_clusters + 1)) * len(self.nodes) // CHUNK
        last = np.append(np.flatnonzero(np.diff(size)), self.num_clusters - 1)
        return [(0, 0), *((int(k) + 1, int(samples[k])) for k in last)]

    def tril(self, values: np.ndarray) -> torch.Tensor:
        """T (Q, Q) of parameters."""
        found = torch.zeros(self.num_effects, self.num_effects, dtype=torch.double)
        found[self.rows, self.columns] = torch.as_tensor(values[self.x.shape[1] :])
        return found

    def _sum(self, values: torch.Tensor) -> torch.Tensor:
        return values.new_zeros((self.num_clusters, *values.shape[1:])).index_add(0, self.cluster, values)

    def _at_mode(self, fixed: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Newton's method for each cluster's v, from where it was last; the Cholesky factors of the curvature."""

        def eta(v: torch.Tensor) -> torch.Tensor:
            return fixed + (z * v[self.cluster]).sum(1)

        def height(v: torch.Tensor) -> torch.Tensor:
            density = _log_density(self.family, self.y, eta(v), self.weight)
            return self._sum(density) - (v**2).sum(1) / 2

        now = height(self.mode)
        if not bool(now.isfinite().all()):
            self.mode = torch.where(now.isfinite()[:, None], self.mode, 0.0)
            now = height(self.mode)
        products, unit = z[:, :, None] * z[:, None], torch.eye(self.num_effects, dtype=torch.double)
        for _ in range(NEWTON_STEPS):
            first, second = _slopes(self.family, self.y, eta(self.mode), self.weight)
            tril = torch.linalg.cholesky_ex(self._sum(products * second[:, None, None]) + unit)[0]
            slope = self._sum(z * first[:, None]) - self.mode
            step = torch.cholesky_solve(slope[:, :, None], tril)[:, :, 0]
            for _ in range(HALVINGS):
                new = height(self.mode + step)
                far = ~(new >= now - PRECISE)
                if not bool(far.any()):
                    break
                step = torch.where(far[:, None], step / 2, step)
            if not float(step.abs().max()) > PRECISE:
                return tril
            self.mode, now = self.mode + step, new
        return tril

    def _parts(self, values: np.ndarray) -> Iterator[_Part]:
        """The integrals, a chunk of clusters at a time."""
        fixed = self.offset + self.x @ torch.as_tensor(values[: self.x.shape[1]])
        z = self.z @ self.tril(values)
        tril = self._at_mode(fixed, z)
        spread = torch.linalg.solve_triangular(tril.mT, torch.eye(self.num_effects, dtype=torch.double), upper=True)
        log_size = -tril.diagonal(dim1=1, dim2=2).log().sum(1)
        base = fixed + (z * self.mode[self.cluster]).sum(1)
        for (c, n), (c_end, n_end) in itertools.pairwise(self.ends):
            clusters, samples = slice(c, c_end), slice(n, n_end)
            cluster = self.cluster[samples]
            wide = torch.einsum("nq,nqr->nr", z[samples], spread[cluster])
            eta = torch.addmm(base[samples, None], wide, self.nodes.T)
            data = (self.y[samples, None], eta, self.weight[samples, None])
            density = _log_density(self.family, *data)
            nodes = self.mode[clusters, None] + self.nodes @ spread[clusters].mT
            terms = self.log_weights - (nodes**2).sum(2) / 2
            terms = terms.index_add(0, cluster - c, density)
            log_integral = terms.logsumexp(1)
            share = (terms - log_integral[:, None]).exp()
            first, second = _slopes(self.family, *data)
            log_integral = log_integral + log_size[clusters]
            yield _Part(clusters, samples, cluster - c, nodes, share, first, second, log_integral)

    def log_likelihood(self, values: np.ndarray) -> tuple[float, np.ndarray]:
        """Of parameters (D,), and its gradient (D,)."""
        total, fixed = 0.0, torch.zeros(self.x.shape[1], dtype=torch.double)
        effects = torch.zeros(self.num_effects, self.num_effects, dtype=torch.double)
        for part in self._parts(values):
            total += float(part.log_integral.sum())
            drawn = part.share[part.cluster] * part.first
            fixed += self.x[part.samples].T @ drawn.sum(1)
            weighted = torch.zeros(len(part.share), len(self.nodes), self.num_effects, dtype=torch.double)
            for q in range(self.num_effects):
                weighted[:, :, q].index_add_(0, part.cluster, drawn * self.z[part.samples, q : q + 1])
            effects += torch.einsum("ckq,ckr->qr", weighted, part.nodes)
        return total, np.concatenate([fixed.numpy(), effects.numpy()[self.rows, self.columns]])

    def information(self, values: np.ndarray, free: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Less the second derivatives (F, F) by those parameters that are free."""
        # each parameter is multiplied with a column of x or z, and with 1 or an effect of v
        columns = np.concatenate([np.arange(self.x.shape[1]), self.x.shape[1] + self.rows])[free]
        places = np.concatenate([np.zeros(self.x.shape[1], int), 1 + self.columns])[free]
        found = torch.zeros(len(columns), len(columns), dtype=torch.double)
        for part in self._parts(values):
            data = torch.cat([self.x[part.samples], self.z[part.samples]], 1)
            before = torch.cat([torch.ones_like(part.nodes[:, :, :1]), part.nodes], 2)
            of_column = {
                a: part.share.new_zeros(part.share.shape).index_add_(0, part.cluster, part.first * data[:, a, None])
                for a in np.unique(columns)
            }
            scores = torch.stack([of_column[a] * before[:, :, b] for a, b in zip(columns, places)], 2)  # (c, K, D)
            mean = torch.einsum("ck,ckd->cd", part.share, scores)
            scores *= part.share[:, :, None].sqrt()
            found += mean.T @ mean - torch.einsum("ckd,cke->de", scores, scores)
            curved = (part.share[part.cluster] * part.second)[:, :, None] * before[part.cluster]
            squares = torch.einsum("nkb,nkd->nbd", curved, before[part.cluster])
            sides = [(np.flatnonzero(places == b), b) for b in range(self.num_effects + 1)]
            for (rows, b), (across, d) in itertools.product(sides, repeat=2):
                left, right = (data[:, columns[side]] for side in (rows, across))
                found[np.ix_(rows, across)] += left.T @ (squares[:, b, d, None] * right)
        return found.numpy()

    def moments(self, values: np.ndarray) -> ClusterMoments:
        """Of every cluster's v given the labels."""
        means, covariances, slopes = [], [], []
        for part in self._parts(values):
            mean = torch.einsum("ck,ckq->cq", part.share, part.nodes)
            apart = part.nodes - mean[:, None]
            covariances.append(torch.einsum("ck,ckq,ckr->cqr", part.share, apart, apart))
            drawn = torch.einsum("nk,nkq->nq", part.share[part.cluster] * part.first, apart[part.cluster])
            products = drawn[:, :, None] * self.x[part.samples, None]
            slopes.append(products.new_zeros(len(mean), *products.shape[1:]).index_add(0, part.cluster, products))
            means.append(mean)
        return ClusterMoments(*self.modes(values), torch.cat(means), torch.cat(covariances), torch.cat(slopes))

    def modes(self, values: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Of every cluster's v given the labels (C, Q), and the inverse of the curvature there (C, Q, Q)."""
        fixed = self.offset + self.x @ torch.as_tensor(values[: self.x.shape[1]])
        tril = self._at_mode(fixed, self.z @ self.tril(values))
        return self.mode, torch.cholesky_inverse(tril)
