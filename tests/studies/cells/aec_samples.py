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

"""A very small autoencoder-classifier, and images for it."""

from __future__ import annotations

import torch

from monai_armed.networks.nets import AEC, ARMEDAEC, CNN

SHAPE = (1, 32, 32)


def network(num_clusters: int = 2) -> ARMEDAEC:
    torch.manual_seed(0)
    small = {"channels": (4, 4, 4), "latent_channels": 8, "classifier_channels": 4}
    random = AEC(SHAPE, norm=("recon", {"num_clusters": num_clusters}), **small)
    classifier = CNN(SHAPE, num_clusters, (4, 4), 4)
    return ARMEDAEC(
        AEC(SHAPE, **small), num_clusters, SHAPE, random, adversary=None, image_classifier=classifier
    ).eval()


def samples(batches: list[str], cells: list[str], clusters: list[int]) -> list[dict]:
    """One batch of as many images."""
    count = len(cells)
    return [
        {
            "image": torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0)),
            "cluster": torch.tensor(clusters),
            "label": torch.tensor([i % 2 for i in range(count)]),
            "file": [f"{batch}_{cell}_{i}.png" for i, (batch, cell) in enumerate(zip(batches, cells))],
            "cell": cells,
            "batch": batches,
        }
    ]
