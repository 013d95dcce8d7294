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

"""The last step of training a bundle's network: its Z-predictor, calibrated and attached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from ..handlers.training_checkpoint import load_weights
from ..networks.nets.cluster_network import ClusterNetwork
from ..networks.nets.z_predictor import ZPredictor

__all__ = ["save_model", "save_with_z_predictor"]


def save_model(network: torch.nn.Module, ckpt_dir: str | Path, device: str | torch.device = "cpu") -> Path:
    """
    Write the weights that training kept, ``ckpt_dir/network/model.pt``, as the finished ``ckpt_dir/model.pt``.

    Args:
        network: the network, without a Z-predictor.
        ckpt_dir: folder of the training.
        device: device of the network.

    Returns:
        the file.
    """
    load_weights(network, Path(ckpt_dir) / "network" / "model.pt", device)
    path = Path(ckpt_dir) / "model.pt"
    torch.save(network.state_dict(), path)
    print(f"model written to {path}: evaluate it with --ckpt_path {path}")
    return path


@torch.no_grad()
def save_with_z_predictor(
    network: ClusterNetwork,
    z_predictor: ZPredictor,
    held_out: Iterable[Mapping[str, torch.Tensor]],
    device: str | torch.device,
    ckpt_dir: str | Path,
) -> Path:
    """
    Calibrate a trained Z-predictor on held-out samples of seen clusters, say how sure and how right it is there,
    attach it to the network, and write both as the finished model.

    Args:
        network: the trained network.
        z_predictor: the trained Z-predictor.
        held_out: batches with ``"image"`` and ``"cluster"``, such as the validation loader.
        device: device of both.
        ckpt_dir: folder of the training.

    Returns:
        the file, ``ckpt_dir/model.pt``.
    """
    z_predictor.eval()
    batches = [(z_predictor.logits(b["image"].to(device)).cpu(), b["cluster"]) for b in held_out]
    logits, cluster = (torch.cat(parts) for parts in zip(*batches))
    temperature = z_predictor.calibrate(logits, cluster)
    z = (logits / temperature).softmax(dim=1)
    print(
        f"Z-predictor on {len(cluster)} held-out samples of {z.shape[1]} seen clusters: "
        f"right {float((z.argmax(1) == cluster).float().mean()):.0%}, temperature {temperature:.2f}, "
        f"mean entropy {float(z_predictor.entropy(z).mean()):.2f} ln(C)"
    )
    load_weights(network, Path(ckpt_dir) / "network" / "model.pt", device)
    network.attach_z_predictor(z_predictor)
    path = Path(ckpt_dir) / "model.pt"
    torch.save(network.state_dict(), path)
    print(f"model written to {path}: evaluate it with --ckpt_path {path}")
    return path
