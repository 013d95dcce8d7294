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

"""A trained model and its network: what of one belongs to the other, and how the network predicts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from monai.engines import PrepareBatch

from monai_armed.bundle.model_file import read_distance, read_record
from monai_armed.engines import PrepareBatchCluster, PrepareBatchRandomCluster
from monai_armed.handlers.training_checkpoint import load_state, read_checkpoint
from monai_armed.networks.blocks import ClusterLight
from monai_armed.networks.layers import RandomEffects
from monai_armed.networks.nets import ARMED, ARMEDAEC, ClusterInput, ZPredictor
from monai_armed.networks.nets.cluster_network import ClusterNetwork

__all__ = ["load_fitting", "load_model", "load_part", "predictions_of", "takes_cluster", "with_z_predictor"]


def takes_cluster(network: torch.nn.Module) -> bool:
    """Whether a network predicts otherwise when it is given the cluster, so that a Z-predictor is of use to it."""
    if isinstance(network, ARMED):
        return len(network.random_slopes) > 0
    return isinstance(network, ClusterInput) or (isinstance(network, ARMEDAEC) and network.random is not None)


def with_z_predictor(
    network: torch.nn.Module, z_predictor: ZPredictor, max_entropy: float | None = None
) -> torch.nn.Module:
    """
    A network as it is when trained: with its Z-predictor, if it takes the cluster.

    Args:
        network: any network.
        z_predictor: the Z-predictor.
        max_entropy: entropy of the inferred cluster above which none is inferred, a share of that of guessing.

    Returns:
        the network.
    """
    if takes_cluster(network):
        options = {} if max_entropy is None else {"max_entropy": max_entropy}
        network.attach_z_predictor(z_predictor, **options)  # type: ignore[operator]
    return network


def load_model(
    network: torch.nn.Module,
    path: str | Path,
    device: str | torch.device = "cpu",
    z_predictor: ZPredictor | None = None,
) -> torch.nn.Module:
    """
    Load a model's weights into its network, on a device.

    Args:
        network: the network.
        path: the model, a ``model.pt``.
        device: where to load it to.
        z_predictor: attached first, if the network has none yet and has a use for it.

    Returns:
        the network, with its ``training_distance``, a
        :py:class:`monai_armed.networks.training_distance.TrainingDistance`, or None where the file has none.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is damaged, or of another network.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"there is no model {path}: train first, or give the path of a model.pt as --ckpt_path."
        )
    if z_predictor is not None:
        with_z_predictor(network, z_predictor)
    load_state(network.to(device), read_checkpoint(path, device), path)
    network.training_distance = read_distance(path)  # type: ignore[assignment]
    return network


def load_fitting(
    network: torch.nn.Module, path: str | Path, clusters: Sequence[str], device: str | torch.device = "cpu"
) -> torch.nn.Module:
    """
    Load of a finished model all that fits another network: what has the same name and shape. Random effects of other
    clusters than the network's do not, and start anew. Prints what is taken.

    Args:
        network: the network.
        path: the finished model, a ``model.pt``.
        clusters: names of the network's clusters.
        device: where to load the tensors to.

    Returns:
        the network.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is damaged, or nothing of it fits.
    """
    state = read_checkpoint(path, device)
    state = network.renamed(state) if isinstance(network, ClusterNetwork) else state
    wanted = network.state_dict()
    others = list(map(str, read_record(path)["clusters"])) != list(map(str, clusters))
    own = [n for n, m in network.named_modules() if others and isinstance(m, (RandomEffects, ClusterLight))]
    fitting = {
        name: state[name]
        for name, value in wanted.items()
        if name in state and state[name].shape == value.shape and not name.startswith(tuple(f"{n}." for n in own))
    }
    if not fitting:
        raise ValueError(
            f"nothing of model {path} fits this network: give a model of the same kind, and the channels, image size "
            "and other settings of its training."
        )
    network.load_state_dict({**wanted, **fitting})
    new = sorted({name.split(".")[0] for name in wanted.keys() - fitting.keys()})
    rest = f"; what is left of {', '.join(new)} starts anew" if new else ""
    print(f"training starts from {len(fitting)} of {len(wanted)} tensors of {path}{rest}.")
    return network


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


def predictions_of(network: torch.nn.Module, prepare_batch: PrepareBatch, seed: int = 0) -> dict[str, PrepareBatch]:
    """
    The ways to predict with a network that an evaluation compares.

    Args:
        network: any network.
        prepare_batch: prepares its batches.
        seed: of the clusters that are drawn at random.

    Returns:
        how to prepare a batch, by name, first for the network's own prediction: ``"mixed"``, that of a network that
        takes the cluster, ``"fixed"``, without random effects, and ``"randomized"``, with a cluster at random.
    """
    if not takes_cluster(network):
        return {"fixed": prepare_batch}
    number: int = network.num_clusters  # type: ignore[assignment]
    ways: dict[str, PrepareBatch] = {"mixed": prepare_batch}
    if not isinstance(network, ClusterInput):
        ways["fixed"] = PrepareBatchCluster(effects="fixed")
    return {**ways, "randomized": PrepareBatchRandomCluster(num_clusters=number, seed=seed)}
