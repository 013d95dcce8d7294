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
"""A network with an eraser put in, as a file of its own."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from ..networks.erasure import ClusterEraser
from ..networks.layers.feature_layers import first_tensor, record_layers
from ..networks.nets.armed import ARMED

__all__ = ["ErasedNetwork", "write_erased"]


class ErasedNetwork(torch.nn.Module):
    """
    A network, one of whose layers gives what an eraser makes of its output.

    Args:
        network: any network.
        layer: name of the layer; of an :py:class:`monai_armed.networks.nets.ARMED` network one of the wrapped one.
        eraser: the eraser, see :py:func:`~monai_armed.audit.erased.layer_eraser`.

    Example:
        >>> erased = ErasedNetwork(DenseNet121(2, 1, 1), "features", ClusterEraser(1024))
        >>> erased(torch.rand(2, 1, 64, 64)).shape
        torch.Size([2, 1])
    """

    def __init__(self, network: torch.nn.Module, layer: str, eraser: ClusterEraser) -> None:
        super().__init__()
        self.network, self.layer, self.eraser = network, layer, eraser

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """
        Args:
            x: images (B, C, *spatial).

        Returns:
            what the network gives.
        """
        inner = self.network.network if isinstance(self.network, ARMED) else self.network
        copied = {("output", self.layer)}
        with record_layers(inner, copied=copied, changes={self.layer: self.eraser}):
            return first_tensor(self.network(x))


def write_erased(
    network: torch.nn.Module, layer: str, eraser: ClusterEraser, example: torch.Tensor, path: str | Path
) -> list[str]:
    """
    Write the erased network, and the eraser alone as ``NAME.eraser.pt``, a state dict of
    :py:class:`~monai_armed.networks.erasure.ClusterEraser`.

    Args:
        network: the network.
        layer: whose output is erased.
        eraser: of it.
        example: two images (2, C, *spatial).
        path: ``*.pt2``: an exported program, for any number of images; ``*.ts`` or ``*.pt``: TorchScript.

    Returns:
        the names of the files.

    Raises:
        ValueError: when the name ends otherwise, or the file does not give what the network does.
    """
    path = Path(path)
    if path.suffix not in (".pt2", ".ts", ".pt"):
        raise ValueError(
            f"the erased network is written as .pt2 (an exported program) or .ts (TorchScript), not {path}."
        )
    if path.suffix != ".pt2" and isinstance(network, torch.export.UnflattenedModule):
        raise ValueError(f"of an exported program the erased network is one, too: name it .pt2, not {path}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    erased = ErasedNetwork(network, layer, eraser)
    if not isinstance(network, torch.export.UnflattenedModule):
        erased.eval()
    example = example.cpu()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of tracing
        wanted = erased(example)
        if path.suffix == ".pt2":
            program = torch.export.export(erased, (example,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
            torch.export.save(program, path)
            found = torch.export.load(path).module()(example)
        else:
            torch.jit.trace(erased, example, check_trace=False).save(str(path))
            found = torch.jit.load(path)(example)
    if not torch.allclose(found, wanted, rtol=1e-3, atol=1e-4):
        path.unlink()
        raise ValueError(f"as {path.suffix} the network gives something else than it does: write it in the other form.")
    beside = path.with_suffix(".eraser.pt")
    torch.save(eraser.state_dict(), beside)
    return [path.name, beside.name]
