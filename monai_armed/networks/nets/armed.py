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

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn
from monai.utils import deprecated_arg, ensure_tuple

from ... import __version__
from ..blocks.factor_slopes import FactorSlopes
from ..layers.channel_dims import channel_dims, channels_first, check_rows
from ..layers.dry_run import DryRun, check_one_output, default_feature_layers, dry_run, find_head, gives_output
from ..layers.feature_layers import find_layer, first_tensor, record_layers
from ..layers.given_cluster import ClusterLayer
from ..layers.random_effects import RandomEffects
from .cluster_network import ClusterNetwork
from .cluster_resolution import Clusters
from .effect_draws import pyro_guide, pyro_model, sample_logits
from .erased_layers import prepare_erasers

__all__ = ["ARMED"]

EFFECTS = ("mixed", "fixed", "random")


class ARMED(ClusterNetwork):
    """
    Turns a network into an adversarially regularised mixed effects network (Fig. 1 of
    https://arxiv.org/abs/2202.11783). The network stays as it is and gives the fixed effects; layers named by string
    are watched by an adversary that makes their features forget the cluster (Eq. 5), and random slopes and intercepts
    of the cluster are added to its logits (Eq. 9 to 13)::

        x --> network: layer ... layer --> latent h --> head --> fixed logits --(+)--> mixed logits
                        |  features, gradient reversed    |                      ^
                        v                                 v                      |
                    adversary --> cluster logits      random_slopes <-- u(z) <-- clusters <-- cluster z

    In training mode ``net(x, cluster)`` returns a dict with ``"mixed"`` and ``"fixed"`` logits (B, K, ...),
    ``"adversary"`` cluster logits (B, C), and the scalar ``"kl"``, for :py:class:`monai_armed.losses.ARMEDLoss`; what
    the model does not have is left out. In evaluation mode it returns one tensor of logits. Without slopes and
    intercept it is a domain adversarial network; with ``adversary=None`` it is a mixed effects network.

    Its parts can be had alone: ``network``; ``clusters`` (:py:class:`ClusterResolution`); ``adversary``
    (:py:class:`Adversary`, or None); ``random_slopes``
    (:py:class:`monai_armed.networks.blocks.FactorSlopes`, by factor); ``erasers``.

    Of several factors, nested or crossed, each has random effects of its own; the adversary guesses, and a Z-predictor
    infers, the clusters of the first.

    Args:
        network: any module with one input that returns logits (B, K) or, for dense predictions, (B, K, *spatial), the
            same in training and evaluation (so no deep supervision), without effects of the cluster of its own (RECON).
        num_clusters: number of clusters C seen in training, or of each of several factors by its name, such as
            ``{"site": 12, "subject": 300}``.
        input_shape: shape of one sample without the batch dimension, such as (1, 96, 96).
        head: name of the last layer, whose output is the network's; found by itself in MONAI's networks.
        feature_layers: names of the layers whose outputs the adversary sees (the last layer's stands for its input); by
            default the last layer at each spatial size and all hidden layers of dense parts.
        adversary: ``"pooled"`` (cheap), ``"whitened"`` (decorrelated besides), ``"conv"`` or ``"dense"`` (as in the
            paper), None, a module that maps the list of features to cluster logits, or what builds one from the
            features' shapes and the number of cluster logits, such as
            ``functools.partial(DenseAdversary, hidden_channels=(16, 16))``.
        nonlinear_slopes: whether the latent gets random slopes (Eq. 9).
        linear_slopes: whether the input gets random slopes (Eq. 11), or which of its columns do, such as [0, 3]; for
            tables.
        intercept: whether the logits get a random intercept (Eq. 10).
        multiplicative: nonlinear slopes that rescale the latent, h (1 + u), in place of Eq. 9.
        num_classes: if above 0 the adversary is conditional on the class: it has one set of cluster logits for each
            class, (B, C, num_classes), and only that of the sample's class counts. Where clusters differ in their
            share of the classes, features may then go on telling the class.
        confusion: if True no gradient is reversed: the features learn from a second pass of the adversary, with its
            weights frozen, whose ``"confusion"`` logits are for :py:class:`monai_armed.losses.ClusterConfusionLoss`.
        unknown: what happens where the cluster is not given or -1, see :py:class:`ClusterResolution`.
        random_effects: further arguments of :py:class:`monai_armed.networks.blocks.RandomSlopes` and
            :py:class:`monai_armed.networks.layers.RandomEffects`, such as ``prior_scale`` and ``learn_prior``; of
            several factors those of each by its name, where those from ``nonlinear_slopes`` to ``multiplicative`` may
            be among them, in place of the ones above.
        erasers: modules by the name of a layer, which take out of its output what tells the clusters, before the
            network goes on with it; of names alone each layer gets a
            :py:class:`monai_armed.networks.erasure.ClusterEraser`. The latent h is then what the last of these layers
            gave before, so that the random effects read what the fixed ones have given up; of tokens those that the
            network goes on with, such as the class token.

    Raises:
        ValueError: when the network has RECON layers, a layer does not exist, the network's output is not that of
            ``head``, there are several outputs, or ``random_effects`` names another factor.

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

    @deprecated_arg("taps", since="0.1.0", removed="0.2.0", new_name="feature_layers", version_val=__version__)
    def __init__(
        self,
        network: nn.Module,
        num_clusters: int | Mapping[str, int],
        input_shape: Sequence[int],
        head: str | None = None,
        feature_layers: Sequence[str] | None = None,
        adversary: str | nn.Module | Callable[..., nn.Module] | None = "pooled",
        nonlinear_slopes: bool = True,
        linear_slopes: bool | Sequence[int] = False,
        intercept: bool = True,
        multiplicative: bool = False,
        num_classes: int = 0,
        confusion: bool = False,
        unknown: str = "population",
        random_effects: Mapping | None = None,
        erasers: Mapping[str, nn.Module] | Sequence[str] | None = None,
        taps: Sequence[str] | None = None,
    ) -> None:
        super().__init__(num_clusters, unknown)
        if any(isinstance(layer, ClusterLayer) for layer in network.modules()):
            raise ValueError(
                f"{type(network).__name__} has layers with random effects of the cluster (norm 'recon'), but the "
                "network that ARMED wraps gives the fixed effects, which know no cluster: build it with another norm."
            )
        dry = dry_run(network, input_shape)
        check_one_output(network, dry)
        self.network = network
        self.head = find_head(network, dry) if head is None else head
        self.overwritten = frozenset(dry.overwritten)
        self.latent_dim = _latent_dim(network, dry, self.head)
        latent = channels_first(dry.record.inputs[self.head], self.latent_dim)
        if multiplicative and self.latent_dim != 1:
            raise ValueError(f"multiplicative slopes need a last layer with channels first, unlike {self.head!r}.")
        names = _checked_layers(network, dry, erasers or ())
        modules, self.erased_places = prepare_erasers(network, dry, names, erasers or ())
        self.erased_layers = tuple(modules)
        if modules and multiplicative:
            raise ValueError("multiplicative slopes rescale the input of the last layer, which has been erased then.")
        if modules:
            latent = self.erased_places[self.erased_layers[-1]](dry.record.outputs[self.erased_layers[-1]])

        sizes = (tuple(input_shape), latent.shape[1], dry.output.shape[1])
        slopes = {
            "nonlinear_slopes": nonlinear_slopes,
            "linear_slopes": linear_slopes,
            "intercept": intercept,
            "multiplicative": multiplicative,
        }
        self.random_slopes = FactorSlopes(num_clusters, sizes, slopes, random_effects or {})
        if adversary is not None:
            layers = default_feature_layers(network, dry, self.head) if feature_layers is None else feature_layers
            self._add_adversary(adversary, network, dry, _checked_layers(network, dry, layers), num_classes, confusion)
        self.erasers = nn.ModuleList(modules.values())
        for part in (self.random_slopes, self.erasers):
            part.to(dry.input.device, dry.input.dtype)

    @property
    def random_effects(self) -> RandomEffects | None:
        """
        The layer of random effects u(z), None for a model without them. Of several factors it is that of the first;
        those of all are in ``random_slopes``, such as ``net.random_slopes["subject"].effects``.
        """
        first = self.clusters.first
        return self.random_slopes[first].effects if first in self.random_slopes else None

    def _run(
        self, x: torch.Tensor, feature_layers: Sequence[str] = ()
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """Fixed logits, latent and features of the network's input."""
        erased = dict(zip(self.erased_layers, self.erasers))
        with record_layers(self.network, (self.head,), feature_layers, self.overwritten, erased) as record:
            fixed = first_tensor(self.network(x))
        if erased:
            name = self.erased_layers[-1]
            latent = self.erased_places[name](record.unchanged[name])
        else:
            latent = channels_first(record.inputs[self.head], self.latent_dim)
        return fixed, latent, self._features(record, feature_layers)

    def fixed_and_latent(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Fixed logits (B, K, ...) and latent h (B, q, ...), by default the last layer's input."""
        return self._run(x)[:2]

    def random(
        self,
        x: torch.Tensor,
        clusters: Mapping[str, torch.Tensor],
        fixed: torch.Tensor,
        latent: torch.Tensor,
        **effects: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """What random effects add to the logits, see :py:class:`monai_armed.networks.blocks.FactorSlopes`."""
        return self.random_slopes(clusters, latent, x, fixed, find_layer(self.network, self.head), **effects)

    sample_logits, pyro_model, pyro_guide = sample_logits, pyro_model, pyro_guide

    def forward(
        self,
        x: torch.Tensor,
        cluster: Clusters = None,
        effects: str = "mixed",
        unknown: str | None = None,
        with_adversary: bool = True,
    ) -> torch.Tensor | dict:
        """
        Args:
            x: (B, *input_shape).
            cluster: integer index (B,), -1 where not known; soft assignment (B, C); or None: none is known. With
                several factors a dict of these by the factors' names.
            effects: in evaluation (training gives all of them): ``"mixed"`` logits, those of the ``"fixed"`` effects
                alone (lme4: re.form=NA), or what the ``"random"`` effects add to them.
            unknown: overrides the policy for unknown clusters in this call.
            with_adversary: if False, training gives the ``"features"`` that the adversary sees, a list of tensors, in
                place of what it says of them, for a trainer that holds it.

        Returns:
            a dict in training, a tensor of logits in evaluation.
        """
        if effects not in EFFECTS:
            raise ValueError(f"effects must be one of {EFFECTS}, got {effects!r}.")
        fixed, latent, features = self._run(x, self.feature_layers if self.training else ())
        mixes = len(self.random_slopes) > 0
        if not self.training and (effects == "fixed" or not mixes):
            return torch.zeros_like(fixed) if effects == "random" else fixed
        outputs: dict[str, Any] = {"fixed": fixed}
        if mixes:
            random = self.random(x, self.clusters(x, cluster, unknown), fixed, latent)
            if not self.training:
                return fixed + random if effects == "mixed" else random.expand_as(fixed)
            outputs = {"mixed": fixed + random, "fixed": fixed, "kl": self.random_slopes.kl()}
        if self.adversary is not None:
            self._warn_of_no_gradient(features)
            outputs.update(self.adversary(features) if with_adversary else {"features": features})
        return outputs


def _latent_dim(network: nn.Module, dry: DryRun, head: str) -> int:
    """Dimension of the channels of the latent, the input of the last layer, whose output is the network's."""
    find_layer(network, head)
    if not gives_output(dry, head):
        raise ValueError(
            f"the output of head {head!r} is not the network's output: random effects are added to the logits, so "
            "build the network without an activation or reshape after its last layer."
        )
    output, latent = dry.output, dry.record.inputs[head]
    given, taken = channel_dims(network, dry, [(head, output), ("", latent)])
    if output.ndim > 2 and given == output.ndim - 1:
        raise ValueError(
            f"head {head!r} gives logits (batch, ..., classes), {tuple(output.shape)} for 2 samples, but random "
            "effects and losses have the classes in dimension 1: end the network with a 1 x 1 convolution in its place."
        )
    return 1 if taken is None else taken


def _checked_layers(network: nn.Module, dry: DryRun, layers: Iterable[str]) -> tuple[str, ...]:
    """The layers, of which a single name is one, if all of them exist and give a tensor."""
    names = ensure_tuple(layers)
    for name in names:
        find_layer(network, name)
        if name not in dry.record.outputs:
            raise ValueError(f"layer {name!r} gives no tensor when the network runs: name another one.")
        check_rows(dry.record.outputs[name], len(dry.input), name)
    return names
