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
"""Cost of a training step of the ARMED autoencoder-classifier over the conventional one, trained jointly and with the
fixed part frozen, and of a RECON block over the convolution block that it replaces; all measured in one run, in turn.

Run ``python benchmarks/aec_step_cost.py``. The networks, the loss, the optimizers and the engine are those of the
bundle ``armed_cell_aec`` as it stands. A round takes one step of each, and the ratios are to the conventional step (the
convolution block) of the same round, so that whatever else the machine does falls on all of them alike.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset
from monai.networks.blocks import Convolution
from step_cost import Step, measure, report

from monai_armed.networks.layers.given_cluster import given_cluster

CONFIGS = Path(__file__).resolve().parents[1] / "bundles" / "armed_cell_aec" / "configs"
NUM_CLUSTERS = 13


def training_step(override: str | None, batch: dict[str, torch.Tensor], erased: bool = False) -> Step:
    """
    One training step as the bundle takes it, by the engine of ``train.json`` with an override file or none, before or
    after what tells the clusters is erased and the encoder frozen.
    """
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / f"{name}.json") for name in ("train", override) if name is not None])
    parser["batches"] = [str(j) for j in range(NUM_CLUSTERS)]
    parser["device"] = torch.device("cpu")
    parser["train#dataloader"] = DataLoader(Dataset([0]), batch_size=1)
    parser["train#trainer#train_handlers"] = []
    trainer = parser.get_parsed_content("train#trainer")
    if erased:
        parser.get_parsed_content("network_def").freeze_encoder()
    return lambda: trainer._iteration(trainer, batch)


def block_step(norm: str | tuple, x: torch.Tensor, cluster: torch.Tensor) -> Step:
    """Forward and backward pass through an encoder block between the bundle's two widest maps."""
    options = {"strides": 2, "kernel_size": 4, "padding": 1, "act": "PRELU", "adn_ordering": "NA"}
    block = Convolution(2, x.shape[1], 2 * x.shape[1], norm=norm, **options)

    def step() -> None:
        block.zero_grad()
        with given_cluster(block, cluster):
            block(x).square().mean().backward()

    return step


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    count = arguments.batch_size
    cluster = torch.randint(NUM_CLUSTERS, (count,))
    batch = {"image": torch.rand(count, 1, 64, 64), "label": torch.randint(2, (count,)), "cluster": cluster}
    models = {
        "conventional": "conventional",
        "domain adversarial": "domain_adversarial",
        "ARMED, joint": None,
        "ARMED, joint, adversary by gradient reversal": "gradient_adversary",
        "ARMED, fixed part frozen": "frozen",
    }
    setting = f"batch {count}, {arguments.rounds} rounds, {arguments.threads} thread(s)"
    print(f"networks of the bundle, 64 x 64, {setting}")
    steps = {name: training_step(file, batch) for name, file in models.items()}
    steps["ARMED, after the erasure"] = training_step(None, batch, erased=True)
    report(measure(steps, arguments.rounds), digits=1)
    for channels, size in ((16, 32), (64, 8)):
        norms = {
            "convolution, batch normalisation": "batch",
            "RECON, batch normalisation": ("recon", {"num_clusters": NUM_CLUSTERS, "normalization": "batch"}),
            "RECON, instance normalisation": ("recon", {"num_clusters": NUM_CLUSTERS}),
        }
        x = torch.rand(count, channels, size, size, requires_grad=True)
        print(f"\nblock of {channels} to {2 * channels} channels on {size} x {size}, forward and backward, {setting}")
        report(measure({n: block_step(norm, x, cluster) for n, norm in norms.items()}, 5 * arguments.rounds), digits=2)


if __name__ == "__main__":
    main()
