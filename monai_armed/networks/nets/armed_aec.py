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

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn as nn
from monai.utils import deprecated_arg, ensure_tuple
from torch.func import functional_call

from ... import __version__
from ..blocks.cluster_light import ClusterLight, shrinkage
from ..layers.dry_run import dry_run
from ..layers.feature_layers import record_layers
from ..layers.given_cluster import ClusterLayer, given_cluster
from ..layers.random_effects import RandomEffects
from .aec import AEC
from .aec_checks import check_random_aec
from .aec_pictures import EFFECTS, AECPictures

__all__ = ["ARMEDAEC"]


class ARMEDAEC(AECPictures):
    """
    ARMED autoencoder-classifier (S 3.1.3, Fig. S4 of https://arxiv.org/abs/2202.11783)::

        x --> fixed AEC --> latent e_F --> phenotype, reconstruction without cluster effects
          |        |  features, gradient reversed --> adversary --> cluster logits
          |        +--- e_F --+--> random AEC's decoder --> reconstruction with cluster effects, or without
          |                   |                             --> image-cluster classifier
          |                   +--> mixed classifier --> phenotype
          |                   |
          +-> random AEC ----e_R--> latent-cluster classifier
              (RECON blocks)

    In training mode ``net(x, cluster)`` returns a dict for :py:class:`monai_armed.losses.AECLoss`: logits ``"mixed"``
    and ``"fixed"`` (B, K), ``"fixed_reconstruction"`` and ``"mixed_reconstruction"`` (B, *in_shape), cluster logits
    (B, C) of the ``"adversary"``, the ``"latent_cluster"``, the ``"image_cluster"`` (of the real image; trains that
    classifier alone) and the ``"reconstruction_cluster"``, and the scalar ``"kl"``. In evaluation mode it returns the
    phenotype's logits.

    The paper reconstructs with cluster effects from e_R, which is to tell the cluster: the decoder then learns nothing
    from the cluster that it is given, and decoding as if from another one changes little. Here it decodes e_F, from
    which the adversary or :py:func:`monai_armed.handlers.erase_clusters` removes the cluster, so that the decoder's
    random effects are the only source for it (Fig. 6). Without effects, at zero, it gives the image without its
    cluster. ``mixed_latent="random"`` does as the paper, where that image is the fixed AEC's.

    Nor does e_F need the cluster for the sake of the error: it is of the image without its cluster's light, a random
    effect of the image itself that is fitted before training, and the fixed AEC's own decoder, though trained on it,
    shapes it by the shared weights alone. e_R is of the image as it is.

    Without ``random`` it is the domain adversarial AEC; without adversary besides, the conventional one; with
    ``random`` and no adversary, the mixed effects AEC.

    Args:
        fixed: the autoencoder-classifier of the fixed effects.
        num_clusters: number of clusters C seen in training.
        in_shape: shape of one image, (channels, size, size).
        random: the autoencoder of the random effects, an AEC with ``norm=("recon", {"num_clusters": C})`` and, since it
            needs no classifier, ``out_channels=0``; or None.
        feature_layers: layers of ``fixed`` that the adversary sees; by default every encoder block and the latent.
        adversary, num_classes, confusion: see :py:class:`ARMED`.
        classifier_channels: units of the hidden layer of the mixed and of the latent-cluster classifier.
        image_classifier: maps images (B, *in_shape) to cluster logits (B, C); needed with ``random``.
        mixed_latent: which latent the reconstruction with cluster effects is decoded from, ``"fixed"`` or, as in the
            paper, ``"random"``.
        freeze_fixed: whether the fixed part stays as it is, as in the paper, which trained it before.
        light: random effects of the images' light, by which, once fitted, :py:meth:`show_as` shows an image as if from
            another cluster; without them the decoder's random effects do.
        remove_light: whether, once the light is fitted, the fixed latent is of the image without its cluster's light,
            which reconstructions get back. Older weights go on without.
        unknown: what happens where the cluster is not given or -1, see :py:class:`ClusterResolution`.

    Raises:
        ValueError: when ``fixed`` has RECON blocks, ``random`` comes without an image classifier, has no RECON blocks,
            one of them or the light is for another number of clusters, ``mixed_latent`` is neither, or the two
            autoencoders' latents differ in size and one decodes the other's.

    Example:
        >>> recon = AEC((1, 64, 64), out_channels=0, norm=("recon", {"num_clusters": 13}))
        >>> net = ARMEDAEC(AEC((1, 64, 64)), 13, (1, 64, 64), recon, image_classifier=CNN((1, 64, 64), 13, (8, 8)))
        >>> net(images, batch)["mixed_reconstruction"].shape
        torch.Size([8, 1, 64, 64])
        >>> net.eval().show_as(images, batch, torch.full((8,), 3)).shape  # as if from batch 3
        torch.Size([8, 1, 64, 64])
    """

    light_removed: torch.Tensor

    @deprecated_arg("taps", since="0.1.0", removed="0.2.0", new_name="feature_layers", version_val=__version__)
    def __init__(
        self,
        fixed: AEC,
        num_clusters: int,
        in_shape: Sequence[int],
        random: AEC | None = None,
        feature_layers: Sequence[str] | None = None,
        adversary: str | nn.Module | Callable[..., nn.Module] | None = "pooled",
        num_classes: int = 0,
        confusion: bool = False,
        classifier_channels: int = 32,
        image_classifier: nn.Module | None = None,
        mixed_latent: str = "fixed",
        freeze_fixed: bool = False,
        unknown: str = "population",
        taps: Sequence[str] | None = None,
        light: ClusterLight | None = None,
        remove_light: bool = True,
    ) -> None:
        super().__init__(num_clusters, unknown)
        if fixed.classifier is None:
            raise ValueError("the autoencoder of the fixed effects needs a classifier: build it with out_channels=1.")
        if any(isinstance(layer, ClusterLayer) for layer in fixed.modules()):
            raise ValueError("the autoencoder of the fixed effects has RECON blocks: build it with another norm.")
        if mixed_latent not in ("fixed", "random"):
            raise ValueError(f"mixed_latent must be 'fixed' or 'random', got {mixed_latent!r}.")
        self.fixed, self.random, self.freeze_fixed = fixed, random, freeze_fixed
        self.mixed_latent = mixed_latent
        if adversary is not None:
            default = (*(f"encoder.{i}" for i in range(len(fixed.encoder))), "to_latent")
            layers = default if feature_layers is None else feature_layers
            self._add_adversary(
                adversary, fixed, dry_run(fixed, in_shape), ensure_tuple(layers), num_classes, confusion
            )
        if random is not None:
            check_random_aec(random, fixed, image_classifier, num_clusters, in_shape, mixed_latent == "fixed")
            units = fixed.latent_channels + random.latent_channels
            self.mixed_classifier = _classifier(units, classifier_channels, fixed.out_channels)
            self.latent_classifier = _classifier(random.latent_channels, classifier_channels, num_clusters)
            self.image_classifier = image_classifier
            for part in (self.mixed_classifier, self.latent_classifier):
                part.to(fixed.to_latent.weight.device, fixed.to_latent.weight.dtype)
        if light is not None and light.num_clusters != num_clusters:
            raise ValueError(f"the network has {num_clusters} clusters, its light {light.num_clusters}.")
        self.light = light
        self.removes_light = remove_light and light is not None
        self.register_buffer("light_removed", torch.tensor(float(self.removes_light)))  # the same, for the file
        self.encoder_frozen = False
        # PyTorch's convolutions and norms are faster so, also on the CPU
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if freeze_fixed:
            fixed.requires_grad_(False)

    def freeze_encoder(self) -> None:
        """Keep the encoder of the fixed effects as it is from now on, also its running statistics; all else learns."""
        self.encoder_frozen = True
        for part in (self.fixed.encoder, self.fixed.to_latent):
            part.requires_grad_(False)
            for weight in part.parameters():
                weight.grad = None  # at a gradient of zero an optimizer's momentum would move it on
        self.train(self.training)

    def train(self, mode: bool = True) -> ARMEDAEC:
        super().train(mode)
        if self.freeze_fixed:
            self.fixed.eval()
        if self.encoder_frozen:
            self.fixed.encoder.eval()
        return self

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        removed, alone = f"{prefix}light_removed", f"{prefix}light.alone"
        if removed not in state_dict and alone not in state_dict:  # of before networks took the light away
            state_dict[removed] = torch.zeros_like(self.light_removed)
            if f"{prefix}light.within" in state_dict:
                state_dict[alone] = shrinkage(state_dict[f"{prefix}light.between"], state_dict[f"{prefix}light.within"])
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.removes_light = bool(self.light_removed)

    @property
    def effects_by_layer(self) -> dict[str, RandomEffects]:
        """The random effects of every RECON block, scales first, by the name of the block in ``random``."""
        if self.random is None:
            return {}
        return {
            name.removesuffix(".effects"): layer
            for name, layer in self.random.named_modules()
            if isinstance(layer, RandomEffects)
        }

    def forward(
        self,
        x: torch.Tensor,
        cluster: torch.Tensor | None = None,
        effects: str = "mixed",
        unknown: str | None = None,
        with_adversary: bool = True,
    ) -> torch.Tensor | dict:
        """
        Args:
            x: (B, *in_shape).
            cluster: integer index (B,), -1 where not known; soft assignment (B, C); or None: none is known.
            effects: in evaluation the logits of ``"mixed"`` or of the ``"fixed"`` effects; training gives both.
            unknown: overrides the policy for unknown clusters in this call.
            with_adversary: see :py:meth:`ARMED.forward`.
        """
        if effects not in EFFECTS:
            raise ValueError(f"effects must be one of {EFFECTS}, got {effects!r}.")
        wanted = self.feature_layers if self.training else ()
        own = self.own_light(x, cluster)
        with record_layers(self.fixed, outputs=wanted, copied=self.overwritten) as record:
            with torch.no_grad() if self.freeze_fixed else nullcontext():
                latent = self._encode(x, own)
                fixed = self.fixed.classify(latent)
        if not self.training and (self.random is None or effects == "fixed"):
            return fixed
        outputs: dict[str, Any] = {"fixed": fixed}
        if self.training and not self.freeze_fixed:
            decoded = self.fixed.decode(latent.detach() if self._decodes_fixed else latent)
            outputs["fixed_reconstruction"] = self._lit(decoded, own)
        if self.random is not None:
            outputs.update(self._random_outputs(x, self.clusters.of_first(x, cluster, unknown), latent, own))
        if not self.training:
            return outputs["mixed"]
        if self.adversary is not None:
            features = self._features(record, self.feature_layers)
            outputs.update(self.adversary(features) if with_adversary else {"features": features})
        return outputs

    @torch.no_grad()
    def describe(self, x: torch.Tensor, cluster: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        All that evaluation asks of images, each encoder run once.

        Args:
            x: (B, *in_shape).
            cluster: index (B,), -1 where not known.

        Returns:
            the fixed ``"latent"`` (B, D), and the logits ``"fixed"`` and ``"mixed"`` (B, K), the same without random
            effects; and, where the network takes it away, the effects ``"light"`` (B, 4) of the images' own light.

        Raises:
            ValueError: when the network is in training mode.
        """
        if self.training:
            raise ValueError("images are described in evaluation mode: call network.eval() first.")
        own = self.own_light(x, cluster)
        latent = self._encode(x, own)
        found = {"latent": latent, "fixed": self.fixed.classify(latent)} | ({} if own is None else {"light": own})
        if self.random is None:
            return {**found, "mixed": found["fixed"]}
        return {**found, **self._random_outputs(x, self.clusters.of_first(x, cluster, None), latent, own)}

    def _random_outputs(
        self, x: torch.Tensor, cluster: torch.Tensor, latent: torch.Tensor, own: torch.Tensor | None
    ) -> dict:
        assert self.random is not None and self.image_classifier is not None
        with given_cluster(self.random, cluster):
            random_latent = self.random.encode(x)
            outputs = {"mixed": self.mixed_classifier(torch.cat([latent, random_latent], dim=1))}
            if not self.training:
                return outputs
            if self._decodes_fixed:
                outputs["mixed_reconstruction"] = self._lit(self.random.decode(latent), own)
            else:
                outputs["mixed_reconstruction"] = self.random.decode(random_latent)
        outputs["latent_cluster"] = self.latent_classifier(random_latent)
        outputs["image_cluster"] = self.image_classifier(x)
        weights = {name: p.detach() for name, p in self.image_classifier.named_parameters()}
        outputs["reconstruction_cluster"] = functional_call(
            self.image_classifier, weights, (outputs["mixed_reconstruction"],)
        )
        outputs["kl"] = torch.stack([layer.kl() for layer in self.effects_by_layer.values()]).sum()
        return outputs


def _classifier(in_channels: int, hidden_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_channels, hidden_channels), nn.PReLU(), nn.Linear(hidden_channels, out_channels))
