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

"""The finished model of a bundle: weights, calibrated Z-predictor, names of the clusters."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from monai_armed.handlers.training_checkpoint import load_state, load_weights, read_checkpoint
from monai_armed.networks.nets.cluster_network import ClusterNetwork
from monai_armed.networks.nets.z_predictor import ZPredictor

__all__ = ["check_sites", "load_part", "read_sites", "save_model", "save_with_z_predictor"]


def save_model(
    network: torch.nn.Module, ckpt_dir: str | Path, sites: Sequence[str], device: str | torch.device = "cpu"
) -> Path:
    """
    Write the weights that training kept, ``ckpt_dir/network/model.pt``, as the finished ``ckpt_dir/model.pt``, and the
    names of its clusters beside it, ``ckpt_dir/sites.json``.

    Args:
        network: the network, without a Z-predictor.
        ckpt_dir: folder of the training.
        sites: names of the seen clusters in the order of their index.
        device: device of the network.

    Returns:
        the file.
    """
    load_weights(network, Path(ckpt_dir) / "network" / "model.pt", device)
    return _write(network, Path(ckpt_dir), sites)


def check_sites(model_sites: Sequence[str], data_sites: Sequence[str]) -> None:
    """
    See that a model's clusters are those that the data are indexed by: an index means another site otherwise.

    Raises:
        ValueError: when they differ.
    """
    if list(map(str, model_sites)) != list(map(str, data_sites)):
        raise ValueError(
            f"the model was trained on {len(model_sites)} sites, {list(model_sites)[:3]} ..., but of these data "
            f"{len(data_sites)} are seen, {list(data_sites)[:3]} ...: evaluate it on the data and with the number of "
            "seen sites that it was trained with."
        )


def load_part(
    network: torch.nn.Module, name: str, path: str | Path, device: str | torch.device = "cpu"
) -> torch.nn.Module:
    """
    Load one part of a network from a finished model that has it too, such as the fixed part of a domain adversarial
    model into an ARMED network that is to keep it as it is.

    Args:
        network: the network.
        name: name of the part in both, such as ``"fixed"``.
        path: the finished model, a ``model.pt``.
        device: where to load the tensors to.

    Returns:
        the network.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the model has no such part, or it is of another network or another shape.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"there is no model {path} to take the part {name!r} from: train one and name it by --{name}_path."
        )
    state = read_checkpoint(path, device)
    part = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
    if not part:
        raise ValueError(f"model {path} has no part {name!r}: give the model.pt of a network that has one.")
    load_state(network.get_submodule(name), part, path)
    return network


def _write(network: torch.nn.Module, folder: Path, sites: Sequence[str]) -> Path:
    path = folder / "model.pt"
    torch.save(network.state_dict(), path)
    (folder / "sites.json").write_text(json.dumps(list(sites)))
    print(f"model written to {path}: evaluate it with --ckpt_path {path}")
    return path


def read_sites(ckpt_path: str | Path) -> list[str]:
    """
    Names of the clusters of a finished model, from ``sites.json`` beside it.

    Raises:
        FileNotFoundError: when there is no such file.
    """
    if not Path(ckpt_path).is_file():
        raise FileNotFoundError(f"there is no model {ckpt_path}: give the path of a model.pt as --ckpt_path.")
    path = Path(ckpt_path).parent / "sites.json"
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path} with the sites of the model {ckpt_path}: train first.")
    return [str(site) for site in json.loads(path.read_text())]


@torch.no_grad()
def save_with_z_predictor(
    network: ClusterNetwork,
    z_predictor: ZPredictor,
    held_out: Iterable[Mapping[str, torch.Tensor]],
    ckpt_dir: str | Path,
    sites: Sequence[str],
    device: str | torch.device = "cpu",
) -> Path:
    """
    Calibrate a trained Z-predictor on held-out samples of seen clusters, say how sure and how right it is there,
    attach it to the network, and write both as the finished model.

    Args:
        network: the trained network.
        z_predictor: the trained Z-predictor.
        held_out: batches with ``"image"`` and ``"cluster"``, such as the validation loader.
        ckpt_dir: folder of the training.
        sites: names of the seen clusters in the order of their index.
        device: device of both.

    Returns:
        the file, ``ckpt_dir/model.pt``.
    """
    load_weights(z_predictor, Path(ckpt_dir) / "z_predictor" / "model.pt", device)
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
    return _write(network, Path(ckpt_dir), sites)
