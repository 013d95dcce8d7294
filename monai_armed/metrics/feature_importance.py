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

"""Feature importance by gradients, and how it sets confounded probe features apart from true ones (Table 2)."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from scipy import stats

__all__ = ["gradient_at_mean", "mean_absolute_gradient", "probe_sign_tests", "probe_t_tests"]


def _gradient(
    network: torch.nn.Module, x: torch.Tensor, cluster: torch.Tensor | None, effects: str | None
) -> torch.Tensor:
    """Gradient of P(y = 1) with respect to the input of each sample, (N, F)."""
    x = x.detach().clone().requires_grad_()
    kwargs = {} if effects is None else {"effects": effects}
    args = () if cluster is None else (cluster,)
    was_training = network.training
    try:
        probability = network.eval()(x, *args, **kwargs).sigmoid()
    finally:
        network.train(was_training)
    if probability.shape[1:].numel() != 1:
        raise ValueError(f"a network with one logit is needed, got the output {tuple(probability.shape)}.")
    return torch.autograd.grad(probability.sum(), x)[0]


def gradient_at_mean(
    network: torch.nn.Module, x: torch.Tensor, cluster: torch.Tensor | None = None, effects: str | None = None
) -> torch.Tensor:
    """
    Importance of each feature as in the paper (Section 2.5.1 of https://arxiv.org/abs/2202.11783): the magnitude of
    the gradient of the predicted probability at the mean input.

    Args:
        network: takes features (N, F) and gives one logit.
        x: features of the samples, (N, F).
        cluster: for networks whose input the cluster is: soft assignments (N, C), whose mean is taken too.
        effects: passed to an ARMED network; ``"fixed"`` for its fixed part.

    Returns:
        importances, (F,).
    """
    mean = None if cluster is None else cluster.mean(0, keepdim=True)
    return _gradient(network, x.mean(0, keepdim=True), mean, effects)[0].abs()


def mean_absolute_gradient(
    network: torch.nn.Module, x: torch.Tensor, cluster: torch.Tensor | None = None, effects: str | None = None
) -> torch.Tensor:
    """
    Importance of each feature as the mean over samples of the gradient's magnitude; unlike
    :py:func:`gradient_at_mean` it does not hang on one point, which may lie where the network is flat.

    Args and returns: as there; ``cluster`` may also be an index (N,).
    """
    return _gradient(network, x, cluster, effects).abs().mean(0)


def probe_t_tests(importance: np.ndarray, num_true: int = 2) -> pd.DataFrame:
    """
    Paired t-tests over folds of each probe against the least important true feature of the same fold (Table 2).

    Args:
        importance: importances (folds, F); the first ``num_true`` features are the true ones, the others probes.
        num_true: number of true features.

    Returns:
        One row a probe: ``probe`` (its column), ``t`` (positive where the true feature counts for more), ``p``.

    Raises:
        ValueError: when there are fewer than two folds, or no probe.
    """
    importance = np.asarray(importance, float)
    if importance.ndim != 2 or len(importance) < 2 or not 0 < num_true < importance.shape[1]:
        raise ValueError(f"importance must be (folds >= 2, more than {num_true} features), got {importance.shape}.")
    least = importance[:, :num_true].min(axis=1)
    tests = [stats.ttest_rel(least, importance[:, probe]) for probe in range(num_true, importance.shape[1])]
    return pd.DataFrame(
        [{"probe": num_true + k, "t": float(t.statistic), "p": float(t.pvalue)} for k, t in enumerate(tests)]
    )


def probe_sign_tests(ranks: pd.DataFrame, model: str) -> pd.Series:
    """
    Paired sign tests over probes: does one model rank them lower than each other one (Section 3.2 of
    https://arxiv.org/abs/2202.11783)? With five probes the smallest p is 0.031.

    Args:
        ranks: a row a model, a column a probe; 1 is the most important feature. Ties are left out.
        model: the model that is compared with the others.

    Returns:
        one-sided p by model.
    """
    p = {}
    for other in ranks.index.drop(model):
        difference = (ranks.loc[model] - ranks.loc[other]).to_numpy(float)
        lower, higher = int((difference > 0).sum()), int((difference < 0).sum())
        p[other] = stats.binomtest(lower, lower + higher, alternative="greater").pvalue if lower + higher else 1.0
    return pd.Series(p, dtype=float)
