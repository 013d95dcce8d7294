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

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer

__all__ = ["ReconstructionInferer"]


class ReconstructionInferer(Inferer):
    """MONAI inferer that asks an :py:class:`monai_armed.networks.nets.ARMEDAEC` for the image as it reconstructs it."""

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """
        Args:
            inputs: images (B, C, *spatial).
            network: the network; it may be wrapped for several processes.
            args: further arguments of its ``reconstruct``, as are ``kwargs``, such as ``cluster``.

        Returns:
            the images, shaped as ``inputs``.
        """
        inner: Any = getattr(network, "module", network)  # out of DDP's wrapper
        return inner.reconstruct(inputs, *args, **kwargs)
