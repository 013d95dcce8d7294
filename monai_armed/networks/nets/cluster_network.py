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

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn

from ..layers.channel_dims import channel_dims, channels_first
from ..layers.dry_run import DryRun
from ..layers.feature_layers import LayerRecord
from .adversary import Adversary
from .cluster_resolution import ClusterResolution

__all__ = ["ClusterNetwork"]

# what state dicts of versions before this one call a part, and what it is called now
RENAMED = {
    "adversary.": "adversary.classifier.",
    "random_slopes.": "random_slopes.cluster.",
    "z_predictor.": "clusters.z_predictor.",
}


class ClusterNetwork(nn.Module):
    """
    Base of networks that take the sample's cluster as a second input, and may have an adversary: what users call on
    each. The parts do the work: ``clusters``, a :py:class:`ClusterResolution` (whose arguments these are), and
    ``adversary``, an :py:class:`Adversary` or None, which sees the ``feature_layers``.
    """

    head = ""  # name of the last layer, which among the feature layers stands for its input

    def __init__(self, num_clusters: int | Mapping[str, int], unknown: str = "population") -> None:
        super().__init__()
        self.clusters = ClusterResolution(num_clusters, unknown)
        self.adversary: Adversary | None = None
        self.feature_layers: tuple[str, ...] = ()
        self.feature_dims: tuple[int, ...] = ()  # those of the channels
        self.overwritten: frozenset[tuple[str, str]] = frozenset()  # inputs and outputs of layers that are to be copied

    @property
    def factors(self) -> dict[str, int]:
        """Number of clusters of each factor by its name, ``"cluster"`` where only a number was given."""
        return self.clusters.factors

    @property
    def num_clusters(self) -> int:
        """Number of clusters of the first factor."""
        return self.clusters.num_clusters

    @property
    def z_predictor(self) -> nn.Module | None:
        """The Z-predictor, if one is attached."""
        return self.clusters.z_predictor

    def attach_z_predictor(self, z_predictor: nn.Module, max_entropy: float | None = None) -> ClusterNetwork:
        """
        Use ``z_predictor`` for samples of unknown cluster from now on (``unknown="infer"``). Its weights are frozen.

        Args:
            z_predictor: in evaluation mode maps the network's input to a soft assignment (B, C).
            max_entropy: between 0 and 1, in units of ln(C): where the assignment's entropy is above it, the predictor
                does not know the sample's like, and the population prediction is given. None: always infer.

        Returns:
            the network itself.

        Raises:
            ValueError: when the predictor was made for another number of clusters or ``max_entropy`` is out of range.
        """
        self.clusters.attach_z_predictor(z_predictor, max_entropy)
        return self

    def set_reversal_strength(self, strength: float) -> None:
        """See :py:meth:`Adversary.set_reversal_strength`; of a network without an adversary it does nothing."""
        if self.adversary is not None:
            self.adversary.set_reversal_strength(strength)

    def _add_adversary(
        self, adversary: Any, network: nn.Module, dry: DryRun, layers: Iterable[str], *options: Any
    ) -> None:
        """An adversary that sees these layers of the network that was run; the options are those of ``build``."""
        self.feature_layers, self.overwritten = tuple(layers), frozenset(dry.overwritten)
        if not self.feature_layers:
            raise ValueError("feature_layers must not be empty: name layers for the adversary, or use adversary=None.")
        given = [(name, self._recorded(dry.record, name)) for name in self.feature_layers]
        self.feature_dims = tuple(dim or 1 for dim in channel_dims(network, dry, given))
        shapes = [tuple(f.shape[1:]) for f in self._features(dry.record, self.feature_layers)]
        made = Adversary.build(adversary, shapes, dry.input.ndim - 2, self.num_clusters, *options)
        self.adversary = made.to(dry.input.device, dry.input.dtype)

    def _features(self, record: LayerRecord, layers: Sequence[str]) -> list[torch.Tensor]:
        """Features of the layers that the adversary sees, channels first, (B, C) or (B, C, *spatial)."""
        dims = dict(zip(self.feature_layers, self.feature_dims))
        return [channels_first(self._recorded(record, name), dims[name]) for name in layers]

    def _warn_of_no_gradient(self, features: Sequence[torch.Tensor]) -> None:
        """An adversary's gradient that reaches nothing would go unnoticed."""
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return
        if names := [name for name, feature in zip(self.feature_layers, features) if not feature.requires_grad]:
            warnings.warn(
                f"the adversary sees {names}, which have no gradient, so that they cannot forget the cluster: they are "
                "frozen (name feature_layers that are trained, or see monai_armed.networks.erasure), run under "
                "torch.no_grad, or in a checkpoint (torch.utils.checkpoint: use_reentrant=False).",
                stacklevel=2,
            )

    def _recorded(self, record: LayerRecord, name: str) -> torch.Tensor:
        return record.inputs[name] if name == self.head else record.outputs[name]

    def renamed(self, state: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        """A state dict, possibly of an older version, by the names that this network has for its parts."""
        wanted = {prefix + name for name in self.state_dict()}
        pairs = [(prefix + old, prefix + new) for old, new in RENAMED.items()]

        def name_now(name: str) -> str:
            found = [new + name.removeprefix(old) for old, new in pairs if name.startswith(old)]
            return found[0] if name not in wanted and found and found[0] in wanted else name

        return {name_now(name): value for name, value in state.items()}

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        renamed = self.renamed(state_dict, prefix)
        state_dict.clear()
        state_dict.update(renamed)
        super()._load_from_state_dict(state_dict, prefix, *args)
