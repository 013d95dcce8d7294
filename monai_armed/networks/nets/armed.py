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

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn as nn

from ..blocks.random_slopes import RandomSlopes
from ..layers.given_cluster import ClusterLayer
from ..layers.random_effects import RandomEffects
from ..layers.taps import default_taps, dry_run, find_head, find_layer, first_tensor, record_layers
from .mixed_effects_network import Clusters, MixedEffectsNetwork

__all__ = ["ARMED"]

EFFECTS = ("mixed", "fixed", "random")
SLOPES = ("nonlinear_slopes", "linear_slopes", "intercept", "multiplicative")


class ARMED(MixedEffectsNetwork):
    """
    Turns a network into an adversarially regularised mixed effects network (Fig. 1 of
    https://arxiv.org/abs/2202.11783). The network stays as it is and gives the fixed effects; layers named by string
    are tapped for an adversary that makes their features forget the cluster (Eq. 5), and random slopes and intercepts
    of the cluster are added to its logits (Eq. 9 to 13)::

        x --> network: layer ... layer --> latent h --> head --> fixed logits --(+)--> mixed logits
                        |  taps, gradient reversed        |                      ^
                        v                                 v                      |
                    adversary --> cluster logits      RandomSlopes <-- u(z) <-- cluster z

    In training mode ``net(x, cluster)`` returns a dict with ``"mixed"`` and ``"fixed"`` logits (B, K, ...),
    ``"adversary"`` cluster logits (B, C), and the scalar ``"kl"``, for :py:class:`monai_armed.losses.ARMEDLoss`; what
    the model does not have is left out. In evaluation mode it returns one tensor of logits. Without slopes and
    intercept it is a domain adversarial network; with ``adversary=None`` it is a mixed effects network.

    Samples that are grouped by several factors at once, nested or crossed, have random effects of each: give the number
    of clusters by factor, and the cluster as a dict of indices, where a factor may be left out if it is not known. The
    first factor is the one whose clusters the adversary guesses and a Z-predictor infers.

    Args:
        network: any module with one input that returns logits (B, K) or, for dense predictions, (B, K, *spatial), the
            same in training and evaluation (so no deep supervision), without effects of the cluster of its own (RECON).
        num_clusters: number of clusters C seen in training, or of each of several factors by its name, such as
            ``{"site": 12, "subject": 300}``.
        input_shape: shape of one sample without the batch dimension, such as (1, 96, 96).
        head: name of the last layer, whose output is the network's; found by itself in MONAI's networks.
        taps: names of the layers whose outputs the adversary sees; by default the last layer at each spatial size and
            all hidden layers of dense parts.
        adversary: ``"pooled"`` (cheap), ``"whitened"`` (decorrelated besides), ``"conv"`` or ``"dense"`` (as in the
            paper), None, a module that maps a list of tapped outputs to cluster logits, or what builds one when it is
            called with the shapes of the tapped outputs and the number of cluster logits, such as
            ``functools.partial(DenseAdversary, hidden_channels=(16, 16))``.
        nonlinear_slopes: whether the latent gets random slopes (Eq. 9).
        linear_slopes: whether the input gets random slopes (Eq. 11); for tables.
        intercept: whether the logits get a random intercept (Eq. 10).
        multiplicative: nonlinear slopes that rescale the latent, h (1 + u), in place of Eq. 9.
        num_classes: if above 0 the adversary is conditional on the class: it has one set of cluster logits for each
            class, (B, C, num_classes), and only that of the sample's class counts. Where the class balance differs
            by cluster, features that tell the class tell the cluster, and marginal invariance would remove them.
        confusion: if True the adversary's second pass, with its weights frozen, gives ``"confusion"`` logits in
            training, for the bounded objectives of :py:class:`monai_armed.losses.ClusterConfusionLoss`; the gradient
            is then not reversed.
        unknown: what happens where the cluster is not given or -1, see :py:class:`ClusterNetwork`.
        random_effects: further arguments of :py:class:`monai_armed.networks.blocks.RandomSlopes` and
            :py:class:`monai_armed.networks.layers.RandomEffects`, such as ``prior_scale`` and ``learn_prior``; of
            several factors those of each by its name, where ``nonlinear_slopes``, ``linear_slopes``, ``intercept`` and
            ``multiplicative`` may be among them, in place of the ones above.

    Raises:
        ValueError: when the network has RECON layers, a layer does not exist, the network's output is not that of
            ``head``, or ``random_effects`` names another factor.

    Example:
        >>> net = ARMED(DenseNet121(2, in_channels=1, out_channels=1), num_clusters=12, input_shape=(1, 96, 96))
        >>> net(images, cluster)["mixed"].shape
        torch.Size([8, 1])
        >>> net.eval()(images).shape  # a new cluster
        torch.Size([8, 1])

        Subjects within sites: slopes and intercept of the site, an intercept of the subject.

        >>> factors = {"site": 12, "subject": 300}
        >>> effects = {"subject": {"nonlinear_slopes": False, "learn_prior": True}}
        >>> net = ARMED(DenseNet121(2, 1, 1), factors, (1, 96, 96), random_effects=effects)
        >>> net(images, {"site": site, "subject": subject})["mixed"].shape
        torch.Size([8, 1])
        >>> net.eval()(images, {"site": site}).shape  # a new subject of a known site
        torch.Size([8, 1])
    """

    def __init__(
        self,
        network: nn.Module,
        num_clusters: int | Mapping[str, int],
        input_shape: Sequence[int],
        head: str | None = None,
        taps: Sequence[str] | None = None,
        adversary: str | nn.Module | Callable[..., nn.Module] | None = "pooled",
        nonlinear_slopes: bool = True,
        linear_slopes: bool = False,
        intercept: bool = True,
        multiplicative: bool = False,
        num_classes: int = 0,
        confusion: bool = False,
        unknown: str = "population",
        random_effects: Mapping | None = None,
    ) -> None:
        super().__init__(network, num_clusters, unknown, num_classes=num_classes, confusion=confusion)
        if any(isinstance(layer, ClusterLayer) for layer in network.modules()):
            raise ValueError(
                f"{type(network).__name__} has layers with random effects of the cluster (norm 'recon'), but the "
                "network that ARMED wraps gives the fixed effects, which know no cluster: build it with another norm."
            )
        record, logits = dry_run(network, input_shape)
        self.head = find_head(network, record, logits) if head is None else head
        latent = self._checked_latent(record, logits)
        if adversary is None:
            taps = ()
        self.taps = tuple(default_taps(network, record, logits) if taps is None else taps)
        if adversary is not None and not self.taps:
            raise ValueError("taps must not be empty: name layers for the adversary, or use adversary=None.")
        for name in self.taps:
            find_layer(network, name)
            if name not in record.outputs:
                raise ValueError(f"layer {name!r} gives no tensor when the network runs, so it cannot be tapped.")

        slopes = dict(zip(SLOPES, (nonlinear_slopes, linear_slopes, intercept, multiplicative)))
        sizes = (tuple(input_shape), latent.shape[1], logits.shape[1])
        self.random_slopes = _random_slopes(num_clusters, sizes, slopes, random_effects or {})
        tap_shapes = [tuple(record.outputs[name].shape[1:]) for name in self.taps]
        self.adversary = self._build_adversary(adversary, tap_shapes, len(input_shape) - 1)

    def _checked_latent(self, record, logits: torch.Tensor) -> torch.Tensor:
        find_layer(self.network, self.head)
        output = record.outputs.get(self.head)
        if output is None or output.shape != logits.shape or not torch.equal(output, logits):
            raise ValueError(
                f"the output of head {self.head!r} is not the network's output: random effects are added to the "
                "logits, so build the network without an activation or reshape after its last layer."
            )
        return record.inputs[self.head]

    @property
    def random_effects(self) -> RandomEffects | None:
        """
        The layer of random effects u(z), None for a model without them. Of several factors it is that of the first;
        those of all are in ``factor_slopes``, such as ``net.factor_slopes["subject"].effects``.
        """
        slopes = self.factor_slopes.get(next(iter(self.factors)))
        return None if slopes is None else slopes.effects

    def forward(
        self,
        x: torch.Tensor,
        cluster: Clusters = None,
        effects: str = "mixed",
        unknown: str | None = None,
        adversary_only: bool = False,
    ) -> torch.Tensor | dict:
        """
        Args:
            x: (B, *input_shape).
            cluster: integer index (B,), -1 where not known; soft assignment (B, C); or None: none is known. With
                several factors a dict of these by the factors' names.
            effects: in evaluation (training gives all of them): ``"mixed"`` logits, those of the ``"fixed"`` effects
                alone (lme4: re.form=NA), or what the ``"random"`` effects add to them.
            unknown: overrides the policy for unknown clusters in this call.
            adversary_only: in training, return the adversary's logits alone, from features without gradient, and
                these features, ``"taps"``, which a further such call takes in place of ``x``.

        Returns:
            a dict in training, a tensor of logits in evaluation.
        """
        if effects not in EFFECTS:
            raise ValueError(f"effects must be one of {EFFECTS}, got {effects!r}.")
        if adversary_only and isinstance(x, list):
            return {"adversary": self._cluster_logits(x), "taps": x}
        taps = self.taps if self.training else ()
        with torch.set_grad_enabled(torch.is_grad_enabled() and not adversary_only):
            with record_layers(self.network, inputs=(self.head,), outputs=taps) as record:
                fixed = first_tensor(self.network(x))
        if self.training:
            tapped = self._pooled([record.outputs[name] for name in self.taps])
            if adversary_only:
                return {"adversary": self._cluster_logits(tapped), "taps": tapped}
            return self._training_outputs(x, cluster, fixed, record.inputs[self.head], tapped)
        if self.random_slopes is None or effects == "fixed":
            return fixed
        random = self._random(x, self.resolve_factors(x, cluster, unknown), record.inputs[self.head], fixed)
        return fixed + random if effects == "mixed" else random.expand_as(fixed)

    def _training_outputs(self, x, cluster, fixed, latent, tapped) -> dict[str, torch.Tensor]:
        outputs = {}
        if self.random_slopes is not None:
            outputs["mixed"] = fixed + self._random(x, self.resolve_factors(x, cluster), latent, fixed)
        outputs["fixed"] = fixed
        if self.adversary is not None:
            outputs.update(self._adversary_outputs(tapped))
        if self.random_slopes is not None:
            kl = [slopes.effects.kl(estimate=True) for slopes in self.factor_slopes.values()]
            outputs["kl"] = sum(kl[1:], kl[0])
        return outputs


def _random_slopes(
    num_clusters: int | Mapping[str, int],
    sizes: tuple[tuple[int, ...], int, int],
    slopes: dict,
    random_effects: Mapping,
) -> RandomSlopes | nn.ModuleDict | None:
    """Random slopes of the one factor, or of each of several that has any."""
    if not isinstance(num_clusters, Mapping):
        return _slopes_of_a_factor(num_clusters, sizes, **{**slopes, **random_effects})
    if not set(random_effects) <= set(num_clusters):
        raise ValueError(f"random_effects is for {list(random_effects)}, but the factors are {list(num_clusters)}.")
    of_each = nn.ModuleDict()
    for name, count in num_clusters.items():
        made = _slopes_of_a_factor(count, sizes, **{**slopes, **random_effects.get(name, {})})
        if made is not None:
            of_each[name] = made
    return of_each if len(of_each) else None


def _slopes_of_a_factor(
    num_clusters: int,
    sizes: tuple[tuple[int, ...], int, int],
    nonlinear_slopes: bool,
    linear_slopes: bool,
    intercept: bool,
    multiplicative: bool,
    **kwargs,
) -> RandomSlopes | None:
    """Random slopes for ``sizes``: shape of an input, channels of the latent and of the logits."""
    input_shape, latent_channels, out_channels = sizes
    if not (nonlinear_slopes or linear_slopes or intercept):
        return None
    if linear_slopes and len(input_shape) != 1:
        raise ValueError(f"linear slopes are for tables, whose input has one dimension, got {input_shape}.")
    return RandomSlopes(
        num_clusters,
        out_channels=out_channels,
        latent_channels=latent_channels if nonlinear_slopes else 0,
        linear_channels=input_shape[0] if linear_slopes else 0,
        intercept=intercept,
        multiplicative=multiplicative,
        **kwargs,
    )
