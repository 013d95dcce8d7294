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

"""Grad-CAM and occlusion maps of a trained network."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from monai.engines import PrepareBatch
from monai.visualize import GradCAM, OcclusionSensitivity

from monai_armed.networks.layers.feature_layers import record_layers
from monai_armed.networks.nets.cluster_network import ClusterNetwork

__all__ = ["SaliencyMaps", "saliency_layer"]


def saliency_layer(network: torch.nn.Module, x: torch.Tensor, max_cell: float, **options: Any) -> str:
    """
    The layer for Grad-CAM by a rule that does not look at the result: the last one, in the order of execution, whose
    output still tells places apart that are ``max_cell`` away from each other. Deeper layers know more of the class,
    and one cell of theirs covers more than the region that is looked for.

    Args:
        network: the network; of one that wraps another, such as ARMED, a layer of the wrapped one is chosen.
        x: a batch, (B, C, *spatial).
        max_cell: largest width of a cell of the output, in pixels of the input.
        options: further arguments of the network.

    Returns:
        the layer's name.

    Raises:
        ValueError: when there is no such layer.
    """
    prefix = "network." if isinstance(network, ClusterNetwork) else ""
    names = [name for name, _ in network.named_modules() if name and name.startswith(prefix)]
    with torch.no_grad(), record_layers(network, outputs=names, check=False) as record:
        network(x, **options)
    fine = [
        name
        for name, output in record.outputs.items()
        if output.ndim == x.ndim and all(n <= max_cell * k for n, k in zip(x.shape[2:], output.shape[2:]))
    ]
    if not fine:
        raise ValueError(
            f"no layer of {type(network).__name__} has cells of {max_cell:g} pixels or less: allow larger ones."
        )
    return fine[-1]


class SaliencyMaps:
    """
    Two maps of what the first logit rests on, both MONAI's: Grad-CAM (what speaks for class 1, at
    :py:func:`saliency_layer`), and occlusion sensitivity (how much the logit changes, in whichever direction, when a
    square is replaced by its mean). Grad-CAM averages the gradient over all places, which suits networks that pool over
    them at the end; where a dense layer has weights of its own for each place, occlusion is the one to believe.

    Args:
        network: the trained network.
        prepare_batch: says what the network is called with, such as the fixed effects alone. A cluster that is not
            known is inferred once, from the whole image.
        max_cell: largest width of Grad-CAM's cells, and width of the occluded squares, in pixels.
        device: device of the network.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        prepare_batch: PrepareBatch,
        max_cell: float,
        device: str | torch.device = "cpu",
    ) -> None:
        self.network = copy.deepcopy(network).to(device).eval()  # Grad-CAM leaves its hooks
        self.prepare_batch, self.max_cell, self.device = prepare_batch, max_cell, device
        self.layer = ""
        self.cam: GradCAM | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """
        Args:
            batch: what the loader gives.

        Returns:
            by method a map (B, *spatial) of values of 0 or more.
        """
        x, _, _, options = self.prepare_batch(dict(batch), self.device)
        cluster = options.get("cluster")
        if isinstance(self.network, ClusterNetwork) and isinstance(cluster, torch.Tensor):
            options = {**options, "cluster": self.network.clusters.of_first(x, cluster)}
        if self.cam is None:
            self.layer = saliency_layer(self.network, x, self.max_cell, **options)
            self.cam = GradCAM(self.network, self.layer, postprocessing=lambda saliency: saliency)
        grad_cam = self.cam(x, class_idx=0, **options).detach().cpu().numpy()[:, 0].clip(min=0)
        occlusion = [self._occluded(x[k : k + 1], _of_image(options, k)) for k in range(len(x))]
        return {"grad_cam": grad_cam, "occlusion": np.stack(occlusion)}

    def untrained(self, seed: int) -> SaliencyMaps:
        """
        Maps of the same network with weights as before training, those of a wrapped network alike whatever wraps it: a
        saliency that does not differ from theirs is one of the images, not of what was learned (Adebayo et al.,
        https://arxiv.org/abs/1810.03292).

        Args:
            seed: of the weights.
        """
        maps = SaliencyMaps(self.network, self.prepare_batch, self.max_cell, self.device)
        wrapped = maps.network.get_submodule("network" if isinstance(maps.network, ClusterNetwork) else "")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for module in (*wrapped.modules(), *getattr(maps.network, "erasers", ())):
                if callable(reset := getattr(module, "reset_parameters", None)):
                    reset()
        return maps

    @torch.no_grad()
    def _occluded(self, x: torch.Tensor, options: Mapping[str, Any]) -> np.ndarray:
        network = _FirstLogit(self.network).eval()
        whole = network(x, **options)
        occlusion = OcclusionSensitivity(
            network,
            mask_size=round(self.max_cell),
            n_batch=32,
            verbose=False,
            mode="mean_patch",
            overlap=0.25,
            activate=lambda logits: (logits - whole).abs(),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # MONAI 1.6 indexes with lists, which PyTorch warns of
            return np.asarray(occlusion(x, **options)[0].cpu())[0, 0]


class _FirstLogit(torch.nn.Module):
    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor, **options: Any) -> torch.Tensor:
        return self.network(x, **options)[:, :1]


def _of_image(options: Mapping[str, Any], k: int) -> dict[str, Any]:
    return {name: value[k : k + 1] if isinstance(value, torch.Tensor) else value for name, value in options.items()}
