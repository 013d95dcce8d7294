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
"""An ONNX file as a network that can be run, whatever its input is like: channels last, a batch of one size, halves."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from monai.utils import optional_import

__all__ = ["OnnxRun"]

onnxruntime, has_onnxruntime = optional_import("onnxruntime")
TYPES = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(double)": torch.float64}


class OnnxRun:
    """
    Args:
        path: the file.

    Raises:
        ValueError: when ONNX Runtime is missing, cannot open it, or it takes anything but one tensor of images.
    """

    def __init__(self, path: str | Path) -> None:
        if not has_onnxruntime:
            raise ValueError(f"{path} needs onnxruntime to run: pip install onnxruntime, or give a CSV of predictions.")
        try:
            self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # whatever it makes of a damaged file, or of one whose weights are elsewhere
            raise ValueError(f"{path} cannot be opened as a network: {str(error).splitlines()[0]}") from error
        inputs = self.session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in TYPES:
            takes = ", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs)
            raise ValueError(f"{path} takes {takes}: one floating-point tensor of images is needed.")
        self.name, self.type, self.shape = inputs[0].name, TYPES[inputs[0].type], list(inputs[0].shape)
        self.warned = False

    def __call__(self, x: torch.Tensor) -> Any:
        """
        Args:
            x: images (B, C, *spatial).

        Returns:
            all outputs, channels first where the network takes and gives channels last.
        """
        turned = not self._takes(x) and self._takes(x.movedim(1, -1))
        if turned and not self.warned:
            self.warned = True
            warnings.warn(f"the network takes channels last, {self.shape}: images are given to it so.", stacklevel=2)
        parts = zip(*(self._batch(part) for part in (x.movedim(1, -1) if turned else x).split(self._size(len(x)))))
        outputs = [torch.cat(found)[: len(x)] for found in parts]
        return tuple(out.movedim(-1, 1) if turned and out.ndim == x.ndim else out for out in outputs)

    def _takes(self, x: torch.Tensor) -> bool:
        """Whether the declared shape, in which sizes that are free are words, is that of the images."""
        pairs = zip(self.shape[1:], x.shape[1:])
        return x.ndim == len(self.shape) and all(size == n for size, n in pairs if isinstance(size, int) and size > 0)

    def _size(self, images: int) -> int:
        fixed = self.shape[0] if self.shape else None
        return fixed if isinstance(fixed, int) and fixed > 0 else images

    def _batch(self, x: torch.Tensor) -> list[torch.Tensor]:
        """A batch, filled up with its last image where the network takes one of a certain size."""
        missing = self._size(len(x)) - len(x)
        full = torch.cat([x, x[-1:].expand(missing, *x.shape[1:])]) if missing else x
        found = self.session.run(None, {self.name: full.cpu().to(self.type).contiguous().numpy()})
        return [torch.as_tensor(out) for out in found]
