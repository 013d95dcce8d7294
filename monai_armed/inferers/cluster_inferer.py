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

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from monai.inferers import Inferer, SaliencyInferer

__all__ = ["ClusterInferer"]

Clusters = torch.Tensor | Mapping[str, torch.Tensor] | None


class ClusterInferer(Inferer):
    """
    Lets an inferer that cuts images into windows, patches or slices predict by cluster: every window gets the cluster
    of its image. (MONAI's own hand the network the clusters of all images with each batch of windows, which are not of
    the same images even where their numbers happen to match.) Images are gone through one at a time.

    Args:
        inferer: any of MONAI's, such as ``SlidingWindowInferer``, ``SliceInferer`` or ``PatchInferer``.

    Example:
        >>> inferer = ClusterInferer(SlidingWindowInferer(roi_size=(96, 96, 96), sw_batch_size=4, overlap=0.25))
        >>> logits = inferer(images, net, cluster=site)  # (B, K, *spatial)
        >>> SupervisedEvaluator(..., inferer=inferer, prepare_batch=PrepareBatchCluster())
    """

    def __init__(self, inferer: Inferer) -> None:
        super().__init__()
        self.inferer = inferer

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, cluster: Clusters = None, **kwargs: Any
    ) -> Any:
        """
        Args:
            inputs: images, (B, channels, *spatial).
            network: predicts windows, with a keyword ``cluster``; in evaluation mode.
            args: further arguments of the inferer, as are ``kwargs`` but for the network's ``effects`` and ``unknown``.
            cluster: index (B,) or soft assignment (B, C) of the images, one of all alike, (1,) or (1, C), a dict of
                such by factor, or None: none is known.

        Returns:
            what the inferer returns, of all images together.

        Raises:
            ValueError: when there is not one cluster for each image.
        """

        def of_image(given: Clusters, i: int) -> Clusters:
            if given is None:
                return None
            if isinstance(given, Mapping):
                return {name: of_image(value, i) for name, value in given.items()}  # type: ignore[misc]
            if len(given) not in (1, len(inputs)):
                raise ValueError(f"{len(inputs)} images need as many clusters, got {len(given)}.")
            return given[i : i + 1] if len(given) > 1 else given

        options: dict[str, Any] = {name: kwargs.pop(name) for name in ("effects", "unknown") if name in kwargs}
        outputs = []
        for i in range(len(inputs)):
            own = options if cluster is None else {**options, "cluster": of_image(cluster, i)}  # (1,): of all windows
            if isinstance(self.inferer, SaliencyInferer):  # it wants a module, and hands on what it is given
                outputs.append(self.inferer(inputs[i : i + 1], network, *args, **kwargs, **own))  # type: ignore[arg-type]
            else:  # SliceInferer hands on nothing
                outputs.append(self.inferer(inputs[i : i + 1], partial(network, **own), *args, **kwargs))
        if isinstance(outputs[0], torch.Tensor):
            return torch.cat(outputs)
        if isinstance(outputs[0], Mapping):
            return {name: torch.cat([out[name] for out in outputs]) for name in outputs[0]}
        return tuple(torch.cat(parts) for parts in zip(*outputs))
