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

"""What it costs to fit an eraser, over the second moments alone, and to use and refit one in a training step.

Run ``python benchmarks/erasure_cost.py``; all in turn in one run, ratios to the first row of the same round.
"""

from __future__ import annotations

import torch
from step_cost import Step, measure, report
from torch import nn

from monai_armed.networks import CNN
from monai_armed.networks.erasure import ClusterEraser, FeatureSums, fit_eraser

SAMPLES, FEATURES, CLUSTERS, BATCH, SIZE, IMAGES = 100_000, 512, 20, 4096, 64, 32


def fits() -> dict[str, Step]:
    """From features to the eraser, beside one Gram matrix of the same features in double precision."""
    features, cluster = torch.randn(SAMPLES, FEATURES), torch.randint(CLUSTERS, (SAMPLES,))
    label, doubles = torch.randint(2, (SAMPLES,)), features.double()

    def fit() -> ClusterEraser:
        sums = FeatureSums(FEATURES, CLUSTERS, num_classes=2)
        for batch in zip(features.split(BATCH), cluster.split(BATCH), label.split(BATCH)):
            sums.update(*batch)
        return fit_eraser(sums)

    return {"Gram matrix": lambda: doubles.T @ doubles, "sums and eraser": fit}


def training_step(erase: bool) -> Step:
    """A step of a small network; with the eraser behind its latent, sums added up in each step, refit in each 50th."""
    network = CNN((1, SIZE, SIZE), channels=(16, 32, 64, 64), dense_channels=64)
    optimizer = torch.optim.NAdam(network.parameters(), 1e-4)
    image, label = torch.rand(IMAGES, 1, SIZE, SIZE), torch.randint(2, (IMAGES,))
    cluster = torch.arange(IMAGES) % CLUSTERS
    eraser, sums, steps = ClusterEraser(64), FeatureSums(64, CLUSTERS, num_classes=2), 0

    def behind(_module: nn.Module, _args: object, latent: torch.Tensor) -> torch.Tensor:
        sums.update(latent, cluster, label)
        return eraser(latent)

    if erase:
        network.dense.register_forward_hook(behind)

    def step() -> None:
        nonlocal steps, sums
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(network(image)[:, 0], label.float()).backward()
        optimizer.step()
        steps += 1
        if erase and steps % 50 == 0:
            eraser.load_state_dict(fit_eraser(sums).state_dict())
            sums = FeatureSums(64, CLUSTERS, num_classes=2)

    return step


def main() -> None:
    """Print both tables."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    print(f"{SAMPLES} x {FEATURES} features of {CLUSTERS} clusters and two classes, 5 rounds")
    report(measure(fits(), 5))
    print(f"CNN, {SIZE} x {SIZE}, batch {IMAGES}, latent of 64, 100 rounds")
    steps = {"training step": training_step(False), "with erasure, refit in each 50th": training_step(True)}
    seconds = measure(steps, 100)
    report(seconds, 1)
    print("mean ratio {1:.3f}".format(*(sum(values) / sum(seconds["training step"]) for values in seconds.values())))


if __name__ == "__main__":
    main()
