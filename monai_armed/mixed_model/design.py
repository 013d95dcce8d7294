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

"""What a mixed model sees of a network and its data: labels, fixed effects, and what each random effect acts on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.networks.utils import eval_mode

from ..engines.prepare_batch import default_prepare_batch
from ..metrics.mixed_model import fixef, ranef
from ..networks.blocks.random_slopes import RandomSlopes
from ..networks.layers.feature_layers import find_layer
from ..networks.nets.armed import ARMED

__all__ = ["Design", "Factor", "read_design"]

INTERCEPT = "(Intercept)"
FIXED = ("latent", "offset")


class Factor(NamedTuple):
    """A grouping factor: cluster of each sample (N,), what its Q effects are multiplied with (N, Q), their names."""

    name: str
    num_clusters: int
    cluster: np.ndarray
    z: np.ndarray
    effects: list[str]
    correlated: bool


class Design(NamedTuple):
    """Labels (N,), columns of the fixed effects (N, P) with their names, offset and weight (N,), and the factors."""

    y: np.ndarray
    x: np.ndarray
    x_names: list[str]
    offset: np.ndarray
    weight: np.ndarray
    factors: list[Factor]


def read_design(
    net: ARMED,
    loader: Iterable[Mapping[str, Any]],
    fixed: str = "latent",
    prepare_batch: Callable | None = None,
    feature_names: Sequence[str] | None = None,
) -> Design:
    """
    Run the network over the data once, in evaluation mode, and note what a mixed model needs.

    Args:
        net: a network with random effects and one logit.
        loader: batches of the training data.
        fixed: ``"latent"``: the fixed effects are the last layer's weights and bias, on its input; ``"offset"``: the
            fixed logits stay as they are, but for an intercept.
        prepare_batch: as for a trainer; by default :py:class:`monai_armed.engines.PrepareBatchCluster`, with the keys
            of several factors.
        feature_names: names of the network's input features.

    Returns:
        the design, in double precision.

    Raises:
        ValueError: when the network has no random effects, several logits or a last layer that is not linear, there
            are no samples, a cluster is not known, or labels are not finite.
    """
    if fixed not in FIXED:
        raise ValueError(f"fixed must be one of {FIXED}, got {fixed!r}.")
    if not net.random_slopes:
        raise ValueError("the network has no random effects to fit: build it with slopes or an intercept.")
    _check_form(net, fixed)
    if prepare_batch is None:
        prepare_batch = default_prepare_batch(net.factors)
    device = next(net.parameters()).device
    parts: list[dict[str, np.ndarray]] = []
    with torch.no_grad(), eval_mode(net):
        for batch in loader:
            x, target, _, options = prepare_batch(batch, device)
            parts.append(_read_batch(net, x, target, options["cluster"], fixed))
    if not parts:
        raise ValueError("the loader gave no batch: a mixed model is fitted to the training data.")
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    for name in ("y", "x", "offset", "weight"):
        if not np.isfinite(whole[name]).all():
            called = {"y": "the labels", "x": "the latent"}.get(name, f"the {name}")
            raise ValueError(f"{called} have values that are not finite, such as NaN: leave these samples out.")
    head_bias = getattr(find_layer(net.network, net.head), "bias", None) is not None
    names = list(fixef(net, feature_names)["effect"]) if fixed == "latent" else [INTERCEPT] * head_bias
    factors = [_factor(net, name, whole, feature_names) for name in net.random_slopes]
    return Design(whole["y"], whole["x"], names, whole["offset"], whole["weight"], factors)


def _check_form(net: ARMED, fixed: str) -> None:
    slopes = next(iter(net.random_slopes.values()))
    head = find_layer(net.network, net.head)
    if slopes.out_channels != 1:
        raise ValueError(f"a mixed model has one logit, the network has {slopes.out_channels}.")
    if not isinstance(head, torch.nn.Linear):
        raise ValueError(f"the last layer {net.head!r} must be linear, it is a {type(head).__name__}.")
    if fixed == "latent" and any(s.multiplicative and "nonlinear" in s.groups for s in net.random_slopes.values()):
        raise ValueError(
            "multiplicative slopes act through the last layer's weights, which cannot be fitted beside them: use "
            "fixed='offset'."
        )


def _read_batch(net: ARMED, x, target, cluster, fixed: str) -> dict[str, np.ndarray]:
    logit, latent = net.fixed_and_latent(x)
    head = find_layer(net.network, net.head)
    clusters = net.clusters(x, cluster)
    ones = torch.ones_like(logit)
    bias = [ones] if head.bias is not None else []
    offset = target.get("offset", torch.zeros_like(logit)).reshape(len(x), 1)
    columns = torch.cat([*bias, latent], 1) if fixed == "latent" else torch.cat([*bias, ones[:, :0]], 1)
    part = {
        "y": target["label"].reshape(len(x)),
        "x": columns,
        "offset": (offset if fixed == "latent" else offset + logit).reshape(len(x)),
        "weight": target.get("weight", ones).reshape(len(x)),
    }
    for name, slopes in net.random_slopes.items():
        index = clusters[name]
        if index.is_floating_point() or bool((index < 0).any()):
            raise ValueError(f"the {name} of every sample must be known to fit a mixed model: leave the others out.")
        part[f"cluster {name}"] = index
        part[f"z {name}"] = _acted_on(slopes, latent, x, logit, head)
    return {name: value.detach().cpu().numpy().astype(_type(name)) for name, value in part.items()}


def _type(name: str) -> type:
    return np.int64 if name.startswith("cluster ") else np.float64


def _acted_on(slopes: RandomSlopes, latent, x, logit, head) -> torch.Tensor:
    """What each effect is multiplied with, (B, Q): the logits are linear in the effects, so one is set at a time."""
    size = slopes.effects.num_effects
    columns = [slopes(unit.expand(len(x), size), latent, x, logit, head) for unit in torch.eye(size).to(logit)]
    return torch.cat(columns, 1)


def _factor(net: ARMED, name: str, whole: dict[str, np.ndarray], feature_names: Sequence[str] | None) -> Factor:
    effects = net.random_slopes[name].effects
    table = ranef(net, feature_names=feature_names)
    if "factor" in table:
        table = table[table["factor"] == name]
    return Factor(
        name,
        effects.num_clusters,
        whole[f"cluster {name}"],
        whole[f"z {name}"],
        list(table["effect"][: effects.num_effects]),
        effects.covariance == "full" and effects.num_effects > 1,
    )
