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


"""Reading a mixed effects network as one reads a mixed model: lme4's fixef, ranef and VarCorr as pandas frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from monai.networks.utils import eval_mode
from monai.utils import optional_import

from ..networks.blocks.random_slopes import RandomSlopes
from ..networks.layers.feature_layers import find_layer
from ..networks.layers.random_effects import RandomEffects
from ..networks.nets.armed import ARMED
from ..utils.parallel import unwrap
from .effect_names import Names, cluster_names, effect_names, factor_slopes, joined, latent_names

if TYPE_CHECKING:
    from xarray import DataTree

arviz_base, _ = optional_import("arviz_base")

__all__ = ["VarCorr", "fixef", "ranef", "to_arviz"]

LEARNED, FIXED = "learned prior", "posterior (prior is fixed)"


def fixef(net: ARMED, feature_names: Sequence[str] | None = None) -> pd.DataFrame:
    """
    Fixed effects: the last layer's bias and weights. They belong to the features if the network is linear, and else to
    the units of the latent that the last layer sees.

    Args:
        net: a network whose last layer is linear.
        feature_names: names of the network's input features.

    Returns:
        a row for each effect and logit: ``effect`` (``"(Intercept)"``, a feature, or a unit ``"h0"``, ...; with several
        logits ``"age[1]"``) and ``estimate``, in logits (or the target's unit) per unit of the feature.

    Raises:
        ValueError: when the last layer is not linear, such as a convolution's, whose weights are no such effects.
    """
    net = unwrap(net)
    head = find_layer(net.network, net.head)
    if not isinstance(head, torch.nn.Linear):
        raise ValueError(
            f"fixef needs a linear last layer, {net.head!r} is a {type(head).__name__}: read the network's fixed part "
            'by its gradients, or predict with effects="fixed".'
        )
    names = latent_names(net, feature_names) or [f"h{i}" for i in range(head.in_features)]
    logits = head.out_features
    ends = [""] if logits == 1 else [f"[{k}]" for k in range(logits)]
    weight = _numpy(head.weight)
    rows = [] if head.bias is None else [("(Intercept)" + end, b) for end, b in zip(ends, _numpy(head.bias))]
    rows += [(name + ends[k], weight[k, i]) for i, name in enumerate(names) for k in range(logits)]
    return pd.DataFrame(rows, columns=["effect", "estimate"])


def ranef(
    net: ARMED,
    clusters: Names = None,
    feature_names: Sequence[str] | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """
    Random effects of every cluster.

    The intervals are those of the effects given all other weights, and therefore too narrow:
    ``benchmarks/posterior_width.py`` compares them with NUTS on a simulated linear mixed model. Given the other weights
    they are as wide as NUTS's with ``covariance="full"`` (ratio 1.0) or where the effects of a cluster do not correlate
    (.98), and .6 as wide with ``covariance="diagonal"`` and a feature whose mean is two s.d. from zero: centre the
    features. With fixed effects and variance components unknown, too, NUTS's are wider: the ratio is then .87 for the
    slope and .72 for the intercept, and .5 for both with that feature.

    Args:
        net: a network with random effects, also inside ``DistributedDataParallel``.
        clusters: names of the clusters in the order of their index; by default the index. For several factors those of
            each by its name.
        feature_names: names of the network's input features.
        level: posterior probability inside the interval.

    Returns:
        a row for each cluster and effect: ``factor`` if there are several, ``cluster``, ``group`` (``"nonlinear"``,
        ``"linear"``, ``"intercept"``), ``effect``, posterior ``mean`` and ``sd``, and the ends ``low`` and ``high`` of
        the credible interval.

    Raises:
        ValueError: when the network has no random effects or the number of names is wrong.
    """
    net = unwrap(net)
    tables = {}
    for factor, slopes in factor_slopes(net).items():
        effects = slopes.effects
        names = cluster_names(net, factor, clusters)
        pairs = effect_names(net, slopes, feature_names)
        low, high = effects.interval(level)
        columns = {"mean": effects.mean, "sd": effects.scale, "low": low, "high": high}
        index = {
            "cluster": [name for name in names for _ in pairs],
            "group": [group for group, _ in pairs] * len(names),
            "effect": [effect for _, effect in pairs] * len(names),
        }
        numbers = {name: _numpy(value).reshape(-1) for name, value in columns.items()}
        tables[factor] = pd.DataFrame({**index, **numbers})
    return joined(net, tables)


def to_arviz(
    net: ARMED,
    clusters: Names = None,
    feature_names: Sequence[str] | None = None,
    num_draws: int = 1000,
    seed: int = 0,
) -> DataTree:
    """
    Draws from the posterior of the random effects for ArviZ's plots and summaries, such as ``arviz.summary`` of the
    package ``arviz``; the draws themselves need ``arviz-base`` alone.

    Args:
        net: a network with random effects, also inside ``DistributedDataParallel``.
        clusters: names of the clusters in the order of their index; by default the index. For several factors those of
            each by its name.
        feature_names: names of the network's input features.
        num_draws: number of draws.
        seed: seed of the draws.

    Returns:
        ArviZ's tree; its group ``posterior`` holds ``u`` (chain, draw, cluster, effect); with several factors one such
        array of each, for example ``u_site`` (chain, draw, site, effect_site).

    Raises:
        ValueError: when the network has no random effects or the number of names is wrong.
        OptionalImportError: when ``arviz-base`` is not installed.
    """
    net = unwrap(net)
    several = net.clusters.has_named_factors
    draws, coords, dims = {}, {}, {}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for factor, slopes in factor_slopes(net).items():
            u, effect = (f"u_{factor}", f"effect_{factor}") if several else ("u", "effect")
            draws[u] = _numpy(slopes.effects.posterior().sample(torch.Size([num_draws])))[None]
            coords[factor] = cluster_names(net, factor, clusters)
            coords[effect] = [name for _, name in effect_names(net, slopes, feature_names)]
            dims[u] = [factor, effect]
    return arviz_base.from_dict({"posterior": draws}, coords=coords, dims=dims)


def VarCorr(
    net: ARMED,
    residual_scale: float | None = None,
    feature_names: Sequence[str] | None = None,
    x: torch.Tensor | None = None,
) -> pd.DataFrame:
    """
    Variance components: how much each effect differs between clusters, and with ``covariance="full"`` how the effects
    correlate. Where the prior is learned they are its own; where it is fixed, as in Eq. 8 of
    https://arxiv.org/abs/2202.11783, it says nothing of the data, and they are the mean square of the posterior means
    plus the mean posterior variance: the value to which a learned prior would move next.

    Learned components of nested factors come out too small where a cluster of the outer one has few of the inner, since
    the posteriors of the factors are independent: ``benchmarks/nested_effects.py`` compares them with maximum
    likelihood on simulated linear models. The s.d. of subjects within sites is .94 of it with 10 subjects a site and 8
    samples of each, and .82 with 4 subjects and 4 samples; that of the sites .96 to .99, of crossed factors .97 to .99.

    Args:
        net: a network with random effects, also inside ``DistributedDataParallel``.
        residual_scale: s.d. of the residual, such as that of :py:class:`monai_armed.losses.GaussianLikelihoodLoss`, or
            pi / sqrt(3) on the logistic scale; adds the row ``"Residual"``.
        feature_names: names of the network's input features.
        x: the network's input, of training samples (N, ...): a slope's share then counts the mean square of what it is
            multiplied with. Without it that is taken to be 1, which holds for standardised features only.

    Returns:
        a row for each effect: ``factor`` if there are several, ``group``, ``effect``, ``sd``, ``share`` of the logit's
        variance between the clusters of all factors (and
        residual, if given; covariances are left out; NaN for multiplicative slopes, which have no variance of their
        own in the logit), ``source`` (whether the prior was learned), and for a full covariance ``corr <effect>`` with
        each effect.

    Raises:
        ValueError: when the network has no random effects, or ``residual_scale`` is not positive.
    """
    if residual_scale is not None and residual_scale <= 0:
        raise ValueError(f"residual_scale must be positive, got {residual_scale}.")
    net = unwrap(net)
    factors = factor_slopes(net)
    logits = next(iter(factors.values())).out_channels
    table = joined(net, {name: _components_of(net, slopes, feature_names, x) for name, slopes in factors.items()})
    contribution = table.pop("contribution")
    logit = table.groupby(table["factor"] if "factor" in table else np.zeros(len(table))).cumcount() % logits
    between = np.array([contribution[logit == k].sum(skipna=False) for k in range(logits)])
    total = between + (residual_scale or 0.0) ** 2
    table.insert(list(table).index("sd") + 1, "share", contribution / total[logit])
    if residual_scale is not None:
        ends = [""] if logits == 1 else [f"[{k}]" for k in range(logits)]
        residual = {
            "group": "residual",
            "effect": [f"Residual{end}" for end in ends],
            "sd": residual_scale,
            "share": residual_scale**2 / total,
            "source": "given",
        }
        table = pd.concat([table, pd.DataFrame(residual)], ignore_index=True)
    return table


def _components_of(
    net: ARMED, slopes: RandomSlopes, feature_names: Sequence[str] | None, x: torch.Tensor | None
) -> pd.DataFrame:
    """One factor's rows of :py:func:`VarCorr`, with their ``contribution`` to the logit's variance."""
    effects = slopes.effects
    pairs = effect_names(net, slopes, feature_names)
    covariance = _numpy(_components(effects))
    variance = np.diag(covariance) if effects.covariance == "full" else covariance
    table = pd.DataFrame(pairs, columns=["group", "effect"]).assign(sd=np.sqrt(variance))
    table["source"] = LEARNED if effects.learn_prior else FIXED
    table["contribution"] = variance if x is None else variance * _mean_squares(net, slopes, x)
    if slopes.multiplicative and "nonlinear" in slopes.groups:
        table["contribution"] = np.nan
    if effects.covariance == "full":
        correlation = covariance / np.sqrt(np.outer(variance, variance))
        table = table.assign(**{f"corr {name}": correlation[:, i] for i, (_, name) in enumerate(pairs)})
    return table


def _components(effects: RandomEffects) -> torch.Tensor:
    """Variances (Q,), or covariance matrix (Q, Q), of the effects between clusters."""
    full = effects.covariance == "full"
    if effects.learn_prior:
        return effects.cluster_prior().covariance_matrix if full else effects.prior_scale.square()
    if not full:
        return (effects.mean.square() + effects.scale.square()).mean(0)
    outer = torch.einsum("ci,cj->ij", effects.mean, effects.mean) / effects.num_clusters
    return outer + effects.posterior().base_dist.covariance_matrix.mean(0)


def _mean_squares(net: ARMED, slopes: RandomSlopes, x: torch.Tensor) -> np.ndarray:
    """Mean square, over samples and space, of what each effect is multiplied with, (Q,)."""
    with torch.no_grad(), eval_mode(net.network):
        _, latent = net.fixed_and_latent(x)
    latent = latent.transpose(0, 1).flatten(1).square().mean(1)
    square = {
        "nonlinear": latent,
        "linear": x.flatten(1)[:, slopes.linear_columns].square().mean(0),
        "intercept": x.new_ones(1),
    }
    logits = slopes.out_channels
    parts = [
        square[group] if len(square[group]) == size else square[group].repeat_interleave(logits)
        for group, size in slopes.groups.items()
    ]
    return _numpy(torch.cat(parts))


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()  # not all devices have double
