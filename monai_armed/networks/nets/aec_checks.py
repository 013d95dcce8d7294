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

from collections.abc import Sequence

import torch.nn as nn

from ..layers.dry_run import dry_run
from ..layers.random_effects import RandomEffects
from .aec import AEC

__all__ = ["check_random_aec"]


def check_random_aec(
    random: AEC,
    fixed: AEC,
    image_classifier: nn.Module | None,
    num_clusters: int,
    in_shape: Sequence[int],
    decodes_fixed: bool,
) -> None:
    """
    Raises:
        ValueError: when the parts of an ARMEDAEC do not fit, of which ``random`` may decode the latent of ``fixed``.
    """
    if image_classifier is None or not any(isinstance(m, RandomEffects) for m in random.modules()):
        raise ValueError(
            "the autoencoder of the random effects needs norm=('recon', {'num_clusters': ...}) and an "
            "image_classifier, which tells the cluster of an image."
        )
    counts = {m.num_clusters for m in random.modules() if isinstance(m, RandomEffects)}
    if counts != {num_clusters}:
        raise ValueError(f"the network has {num_clusters} clusters, its RECON blocks {sorted(counts)}.")
    named = dry_run(image_classifier, in_shape).output.shape[1]
    if named != num_clusters:
        raise ValueError(f"the network has {num_clusters} clusters, its image_classifier tells {named} apart.")
    if decodes_fixed and fixed.latent_channels != random.latent_channels:
        raise ValueError(
            f"the fixed latent has {fixed.latent_channels} units and the random one "
            f"{random.latent_channels}: give both the same latent_channels, or mixed_latent='random'."
        )
