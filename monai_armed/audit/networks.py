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
"""Opening what other people call their network: a TorchScript file, an exported program, ONNX, a MONAI bundle."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from .onnx import OnnxRun

__all__ = ["BundleParts", "NoLayers", "layer_prefix", "open_bundle", "open_network"]

ERASED = {"eraser", "network"}  # parts of monai_armed.audit.erase.ErasedNetwork


class NoLayers(torch.nn.Module):
    """
    A network that can be run and not looked into: TorchScript, whose layers call no hooks, or an ONNX session.

    Args:
        run: what is called with the images.
    """

    def __init__(self, run: Any) -> None:
        super().__init__()
        self.run = run

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Args: x: images (B, C, *spatial)."""
        return self.run(x)


class BundleParts:
    """
    What a bundle's config has for an audit. Its expressions are executed: a bundle is a program.

    Args:
        config_files: the config, and files that override it.
        overrides: values by id, such as ``{"dataset_dir": "/my/data"}``.
    """

    def __init__(self, config_files: Sequence[str | Path], overrides: dict[str, Any] | None = None) -> None:
        for file in config_files:
            if not Path(file).is_file():
                raise FileNotFoundError(f"there is no config file {file}.")
        self.parser = ConfigParser()
        self.parser.read_config([str(file) for file in config_files])
        self.root = Path(config_files[0]).resolve().parents[1]
        self.parser["bundle_root"] = str(self.root)
        for id, value in (overrides or {}).items():
            self.parser[id] = value

    def __contains__(self, id: str) -> bool:
        return id in self.parser

    def part(self, id: str) -> Any:
        """The part of the config that is called ``id``."""
        if id not in self.parser:
            has = ", ".join(map(repr, self.parser.get()))
            raise ValueError(f"the config has no {id!r}; it has {has}.")
        return self.parser.get_parsed_content(id)


def layer_prefix(network: torch.nn.Module) -> str:
    """
    What stands before the names that layers had before ``erase`` put the network into an exported program of its own:
    ``"network."`` for each time that it did; else nothing.
    """
    prefix, inner = "", network
    while isinstance(network, torch.export.UnflattenedModule) and ERASED == dict(inner.named_children()).keys():
        prefix, inner = f"{prefix}network.", inner.get_submodule("network")
    return prefix


def open_bundle(parts: BundleParts, network_id: str | None = None, weights: str | Path | None = None) -> Any:
    """
    The network of a bundle with its weights.

    Args:
        parts: of its config.
        network_id: id of the network; by default ``network`` where the config loads weights into it, as those of this
            project do, else ``network_def``, as MONAI's zoo has it.
        weights: state dict to load; by default, for ``network_def``, the bundle's ``models/model.pt``. A config that
            loads weights itself, from its ``ckpt_path``, loads these: how many clusters there are is in the file.

    Raises:
        FileNotFoundError: when there is no file of these weights.
        ValueError: when the part is no network, or the weights do not fit.
    """
    if network_id is None:
        loads = "load" in str(parts.parser.get("network", {}) if "network" in parts else "")
        network_id = "network" if loads else "network_def"
    if weights is not None and not Path(weights).is_file():
        raise FileNotFoundError(f"there are no weights {weights}.")
    if weights is not None and network_id == "network" and "ckpt_path" in parts:
        parts.parser["ckpt_path"], weights = str(weights), None
    network = parts.part(network_id)
    if not isinstance(network, torch.nn.Module):
        raise ValueError(f"{network_id!r} of the config is a {type(network).__name__}, no network.")
    if weights is None and network_id == "network_def" and (parts.root / "models" / "model.pt").is_file():
        weights = parts.root / "models" / "model.pt"
    if weights is not None:
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
            network.load_state_dict(state.get("model", state))
        except (RuntimeError, AttributeError, ValueError, KeyError) as error:
            raise ValueError(f"{weights} does not fit {network_id!r}: {str(error).splitlines()[0]}") from error
    return network.eval()


def open_network(path: str | Path) -> torch.nn.Module:
    """
    Open a file that has a whole network.

    Args:
        path: an exported program (``torch.export.save``), TorchScript or ONNX. Of the first the layers can be looked
            into, of the others the predictions alone.

    Raises:
        ValueError: when it is none of these, or ONNX cannot be run.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no network {path}.")
    if path.suffix.lower() == ".onnx":
        return NoLayers(OnnxRun(path))
    names = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TorchScript is on its way out
            if any(name.endswith("/constants.pkl") or name == "constants.pkl" for name in names):
                return NoLayers(torch.jit.load(path, map_location="cpu").eval())
            if path.suffix == ".pt2" or any("archive_format" in name for name in names):
                return torch.export.unflatten(_of_any_batch(torch.export.load(path)))
    except _FixedBatch as error:
        raise ValueError(f"{path} {error}") from None
    except Exception as error:  # whatever PyTorch makes of a damaged file
        raise ValueError(f"{path} cannot be opened as a network: {str(error).splitlines()[0]}") from error
    raise ValueError(
        f"{path} holds no whole network that opens without its code, perhaps weights alone or a pickled module: export "
        "it by torch.export.save, or name the bundle that builds it by --config_file and give its weights, a state "
        "dict, as --weights."
    )


class _FixedBatch(Exception):
    pass


def _of_any_batch(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program, if it takes any number of images."""
    given = set(program.graph_signature.user_inputs)
    shapes = [node.meta["val"].shape for node in program.graph.nodes if node.name in given]
    if shapes and len(shapes[0]) and isinstance(shapes[0][0], int):
        raise _FixedBatch(
            f"was exported for batches of {shapes[0][0]} alone: export it once more with two images and "
            "dynamic_shapes=({0: torch.export.Dim.AUTO},)."
        )
    return program
