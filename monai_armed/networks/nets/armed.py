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

from collections.abc import Mapping, Sequence

import pyro
import torch
import torch.nn as nn
from torch.func import functional_call

from ..blocks.random_slopes import RandomSlopes
from ..layers.gradient_reversal import reverse_gradient
from ..layers.random_effects import RandomEffects
from ..layers.taps import default_taps, find_head, find_layer, first_tensor, record_layers
from .adversaries import ConvAdversary, DenseAdversary, PooledAdversary
from .cluster_network import ClusterNetwork

__all__ = ["ARMED"]

EFFECTS = ("mixed", "fixed", "random")


class ARMED(ClusterNetwork):
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

    Args:
        network: any module with one input that returns logits (B, K) or, for dense predictions, (B, K, *spatial), the
            same in training and evaluation (so no deep supervision).
        num_clusters: number of clusters C seen in training.
        input_shape: shape of one sample without the batch dimension, such as (1, 96, 96).
        head: name of the last layer, whose output is the network's; found by itself in MONAI's networks.
        taps: names of the layers whose outputs the adversary sees; by default the last layer at each spatial size and
            all hidden layers of dense parts.
        adversary: ``"pooled"`` (cheap), ``"conv"`` or ``"dense"`` (as in the paper), None, or a module that maps a
            list of tapped outputs to cluster logits.
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
            :py:class:`monai_armed.networks.layers.RandomEffects`, such as ``prior_scale`` and ``learn_prior``.

    Raises:
        ValueError: when a layer does not exist, or the network's output is not that of ``head``.

    Example:
        >>> net = ARMED(DenseNet121(2, in_channels=1, out_channels=1), num_clusters=12, input_shape=(1, 96, 96))
        >>> net(images, cluster)["mixed"].shape
        torch.Size([8, 1])
        >>> net.eval()(images).shape  # a new cluster
        torch.Size([8, 1])
    """

    reversal_strength: torch.Tensor

    def __init__(
        self,
        network: nn.Module,
        num_clusters: int,
        input_shape: Sequence[int],
        head: str | None = None,
        taps: Sequence[str] | None = None,
        adversary: str | nn.Module | None = "pooled",
        nonlinear_slopes: bool = True,
        linear_slopes: bool = False,
        intercept: bool = True,
        multiplicative: bool = False,
        num_classes: int = 0,
        confusion: bool = False,
        unknown: str = "population",
        random_effects: Mapping | None = None,
    ) -> None:
        super().__init__(num_clusters, unknown)
        self.network = network
        self.num_classes, self.confusion = num_classes, confusion
        record, logits = self._dry_run(input_shape)
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

        self.random_slopes: RandomSlopes | None = None
        if nonlinear_slopes or linear_slopes or intercept:
            if linear_slopes and len(input_shape) != 1:
                raise ValueError(f"linear slopes are for tables, whose input has one dimension, got {input_shape}.")
            self.random_slopes = RandomSlopes(
                num_clusters,
                out_channels=logits.shape[1],
                latent_channels=latent.shape[1] if nonlinear_slopes else 0,
                linear_channels=input_shape[0] if linear_slopes else 0,
                intercept=intercept,
                multiplicative=multiplicative,
                **(random_effects or {}),
            )
        tap_shapes = [tuple(record.outputs[name].shape[1:]) for name in self.taps]
        self.adversary = self._build_adversary(adversary, tap_shapes, len(input_shape) - 1)
        # not part of the state dict: a training schedule sets it anew in each run
        self.register_buffer("reversal_strength", torch.tensor(1.0), persistent=False)

    def _dry_run(self, input_shape: Sequence[int]):
        parameter = next(self.network.parameters(), torch.empty(0))
        x = torch.zeros((2, *input_shape), device=parameter.device, dtype=parameter.dtype)
        names = [name for name, _ in self.network.named_modules() if name]
        training = {m: m.training for m in self.network.modules()}
        try:
            with torch.no_grad(), record_layers(self.network.eval(), inputs=names, outputs=names) as record:
                try:
                    output = self.network(x)
                except Exception as error:
                    raise ValueError(
                        f"{type(self.network).__name__} does not take input_shape {tuple(input_shape)}, which is the "
                        f"shape of one sample, channels first, without the batch: {error}"
                    ) from error
                logits = first_tensor(output)
        finally:
            for module, mode in training.items():
                module.training = mode
        if logits.ndim < 2 or logits.shape[0] != 2:
            raise ValueError(
                f"network must return logits (batch, channels, ...), got {tuple(logits.shape)} for 2 samples."
            )
        return record, logits

    def _checked_latent(self, record, logits: torch.Tensor) -> torch.Tensor:
        find_layer(self.network, self.head)
        output = record.outputs.get(self.head)
        if output is None or output.shape != logits.shape or not torch.equal(output, logits):
            raise ValueError(
                f"the output of head {self.head!r} is not the network's output: random effects are added to the "
                "logits, so build the network without an activation or reshape after its last layer."
            )
        return record.inputs[self.head]

    def _build_adversary(self, adversary, tap_shapes: list[tuple[int, ...]], spatial_dims: int) -> nn.Module | None:
        if adversary is None or isinstance(adversary, nn.Module):
            return adversary
        outputs = self.num_clusters * max(1, self.num_classes)
        if adversary == "pooled":
            return PooledAdversary(tap_shapes, outputs, spatial_dims=spatial_dims)
        if adversary == "conv":
            return ConvAdversary(tap_shapes, outputs, spatial_dims=spatial_dims)
        if adversary == "dense":
            return DenseAdversary(tap_shapes, outputs)
        raise ValueError(f"adversary must be 'pooled', 'conv', 'dense', a module or None, got {adversary!r}.")

    @property
    def random_effects(self) -> RandomEffects | None:
        """The layer of random effects u(z), None for a model without them."""
        return None if self.random_slopes is None else self.random_slopes.effects

    def set_reversal_strength(self, strength: float) -> None:
        """Factor of the reversed gradient, at least 0, usually up to 1; for the warm-up of the adversary's pressure."""
        if strength < 0:
            raise ValueError(f"strength must not be negative, got {strength}: the sign is taken care of.")
        self.reversal_strength.fill_(strength)

    def forward(
        self,
        x: torch.Tensor,
        cluster: torch.Tensor | None = None,
        effects: str = "mixed",
        unknown: str | None = None,
        adversary_only: bool = False,
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """
        Args:
            x: (B, *input_shape).
            cluster: integer index (B,), -1 where not known; soft assignment (B, C); or None: none is known.
            effects: in evaluation (training gives all of them): ``"mixed"`` logits, those of the ``"fixed"`` effects
                alone (lme4: re.form=NA), or what the ``"random"`` effects add to them.
            unknown: overrides the policy for unknown clusters in this call.
            adversary_only: in training, return the adversary's logits alone, from features without gradient.

        Returns:
            a dict in training, a tensor of logits in evaluation.
        """
        if effects not in EFFECTS:
            raise ValueError(f"effects must be one of {EFFECTS}, got {effects!r}.")
        taps = self.taps if self.training else ()
        with torch.set_grad_enabled(torch.is_grad_enabled() and not adversary_only):
            with record_layers(self.network, inputs=(self.head,), outputs=taps) as record:
                fixed = first_tensor(self.network(x))
        if self.training:
            tapped = [record.outputs[name] for name in self.taps]
            if isinstance(self.adversary, PooledAdversary):
                tapped = self.adversary.pool(tapped)  # the gradient is then reversed where that costs nothing
            if adversary_only:
                return {"adversary": self._cluster_logits(tapped)}
            return self._training_outputs(x, cluster, fixed, record.inputs[self.head], tapped)
        if self.random_slopes is None or effects == "fixed":
            return fixed
        random = self._random(x, self.resolve_cluster(x, cluster, unknown), record.inputs[self.head], fixed)
        return fixed + random if effects == "mixed" else random.expand_as(fixed)

    def _training_outputs(self, x, cluster, fixed, latent, tapped) -> dict[str, torch.Tensor]:
        outputs = {}
        if self.random_slopes is not None:
            outputs["mixed"] = fixed + self._random(x, self.resolve_cluster(x, cluster), latent, fixed)
        outputs["fixed"] = fixed
        if self.adversary is not None:
            if self.confusion:
                outputs["adversary"] = self._cluster_logits([t.detach() for t in tapped])
                outputs["confusion"] = self._cluster_logits(tapped, frozen=True)
            else:
                outputs["adversary"] = self._cluster_logits(
                    [reverse_gradient(t, self.reversal_strength) for t in tapped]
                )
        if self.random_slopes is not None:
            outputs["kl"] = self.random_slopes.effects.kl()
        return outputs

    def _cluster_logits(self, tapped: list[torch.Tensor], frozen: bool = False) -> torch.Tensor:
        assert self.adversary is not None
        if frozen:
            weights = {name: p.detach() for name, p in self.adversary.named_parameters()}
            logits = functional_call(self.adversary, weights, (tapped,))
        else:
            logits = self.adversary(tapped)
        return logits.unflatten(1, (self.num_clusters, self.num_classes)) if self.num_classes else logits

    def _random(self, x, cluster: torch.Tensor, latent: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        assert self.random_slopes is not None
        u = self.random_slopes.effects(cluster)
        return self.random_slopes(u, latent, x, fixed, find_layer(self.network, self.head))

    def _features(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Fixed logits and latent of the input."""
        with record_layers(self.network, inputs=(self.head,)) as record:
            fixed = first_tensor(self.network(x))
        return fixed, record.inputs[self.head]

    def _drawn(self, x, cluster, features, table: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """Mixed logits with the effects of ``table`` (C, Q), and those of ``new`` (B, Q) where nothing is known."""
        assert self.random_slopes is not None
        fixed, latent = features
        # neither an index nor an inferred assignment: a new cluster
        unknown = cluster.sum(dim=1) == 0 if cluster.is_floating_point() else cluster < 0
        u = torch.where(unknown.unsqueeze(-1), new, self.random_slopes.effects(cluster, table))
        return fixed + self.random_slopes(u, latent, x, fixed, find_layer(self.network, self.head))

    def _effects_to_draw(self) -> RandomEffects:
        if self.random_slopes is None:
            raise ValueError("the network has no random effects to draw.")
        return self.random_slopes.effects

    @torch.no_grad()
    def sample_logits(
        self, x: torch.Tensor, cluster: torch.Tensor | None = None, num_samples: int = 100, unknown: str | None = None
    ) -> torch.Tensor:
        """
        Mixed logits under draws of the random effects, for predictive intervals: of the posterior for known clusters,
        of its mixture by the Z-predictor for inferred ones, and of the prior where nothing is known of the cluster.
        The same as ``pyro.infer.Predictive`` on :py:meth:`pyro_model`, with one pass through the network.

        Args:
            x: (B, *input_shape).
            cluster: as for the call of the network.
            num_samples: number of draws S.
            unknown: overrides the policy for unknown clusters in this call.

        Returns:
            (S, B, K, ...).

        Raises:
            ValueError: when the network has no random effects.
        """
        effects = self._effects_to_draw()
        features = self._features(x)
        cluster = self.resolve_cluster(x, cluster, unknown)
        posterior, prior = effects.posterior(), effects.cluster_prior().expand([x.shape[0]])
        draws = [self._drawn(x, cluster, features, posterior.sample(), prior.sample()) for _ in range(num_samples)]
        return torch.stack(draws)

    def pyro_model(self, x: torch.Tensor, cluster: torch.Tensor | None = None) -> torch.Tensor:
        """
        The network as a Pyro model whose one latent site ``"u"`` is the table of random effects (C, Q), for
        ``pyro.infer.Predictive(net.pyro_model, guide=net.pyro_guide, num_samples=n)``, NUTS and the like. A sample of
        unknown cluster gets random effects of its own, drawn from the prior at site ``"u_new"``, or those mixed by the
        Z-predictor.

        Returns:
            mixed logits, also recorded as site ``"logits"``.

        Raises:
            ValueError: when the network has no random effects.
        """
        effects = self._effects_to_draw()
        features = self._features(x)
        cluster = self.resolve_cluster(x, cluster)
        table = pyro.sample("u", effects.prior())
        new = pyro.sample("u_new", effects.cluster_prior().expand([x.shape[0]]).to_event(1))
        return pyro.deterministic("logits", self._drawn(x, cluster, features, table, new))

    def pyro_guide(self, x: torch.Tensor, cluster: torch.Tensor | None = None) -> None:
        """The posterior of the random effects as a Pyro guide of :py:meth:`pyro_model`."""
        pyro.sample("u", self._effects_to_draw().posterior())
