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
"""The images of a data list, read for a network, in batches, as often as they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import list_data_collate
from monai.transforms import Compose, EnsureTyped, LoadImaged, Resized, ScaleIntensityRanged, Transform

from .data_list import Samples

__all__ = ["Images", "SizeNote", "sizes_said", "usual_preprocessing"]

KEPT_BYTES = 2**30  # what has been read is kept up to here


def usual_preprocessing(
    size: Sequence[int], value_range: Sequence[float], masks: bool, rows_first: bool = False
) -> Transform:
    """
    Reads ``image`` (and, of ``masks``, ``label``), resizes it, and scales a range of values to 0 to 1.

    Args:
        size: spatial size of the network's input.
        value_range: values that become 0 and 1.
        masks: whether labels are masks, of which what is above 0 is foreground.
        rows_first: whether pictures such as PNG have their rows before their columns, as in PIL's and torchvision's
            arrays; by default columns come first, as MONAI's ``LoadImage`` has it.
    """
    reader: dict[str, Any] = {"reader": "PILReader", "reverse_indexing": False} if rows_first else {}
    keys = ["image", "label"] if masks else ["image"]
    return Compose(
        [
            LoadImaged(keys, ensure_channel_first=True, **reader),
            SizeNote(),
            Resized(keys, size, mode=["area", "nearest"][: len(keys)]),
            ScaleIntensityRanged("image", value_range[0], value_range[1], 0, 1, clip=True),
            EnsureTyped(keys, track_meta=False),
        ]
    )


class SizeNote(Transform):
    """Keeps the spatial sizes of the images that pass, ``sizes``."""

    def __init__(self) -> None:
        self.sizes: set[tuple[int, ...]] = set()

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """Args: data: with ``image`` (C, *spatial)."""
        self.sizes.add(tuple(data["image"].shape[1:]))
        return data


def sizes_said(images: Images | None) -> str:
    """Which sizes the images had before they were resized, and by how much that has changed their proportions."""
    parts = getattr(getattr(images, "preprocessing", None), "transforms", ())
    sizes = sorted({size for part in parts if isinstance(part, SizeNote) for size in part.sizes})
    if not sizes:
        return "as the preprocessing makes them"
    resize = next(part for part in parts if isinstance(part, Resized))
    target = np.array(resize.resizer.spatial_size, float)
    scales = target / np.array(sizes, float)
    stretch = float((scales.max(1) / scales.min(1)).max())
    shown = " to ".join(" x ".join(map(str, size)) for size in dict.fromkeys([sizes[0], sizes[-1]]))
    to = " x ".join(f"{n:g}" for n in target)
    said = f"{len(sizes)} size{'s' * (len(sizes) > 1)}, {shown}, resized to {to}"
    return f"{said}; proportions changed by up to a factor of {stretch:.2f}" if stretch > 1.005 else said


class Images:
    """
    Batches of a data list's images.

    Args:
        samples: the data list.
        preprocessing: makes of ``{"image": path, "label": class or path of the mask}`` what the network takes.
        batch_size: images a batch.

    Raises:
        ValueError: when the data list has no images, or some are not there.
    """

    def __init__(
        self, samples: Samples, preprocessing: Callable[[dict[str, Any]], Mapping[str, Any]], batch_size: int = 32
    ) -> None:
        if samples.image is None:
            raise ValueError("the data list has no column of images: a network has nothing to run on.")
        named = [*samples.image, *(label for label in samples.label if isinstance(label, str))]
        if missing := [path for path in named if not Path(path).exists()]:
            raise ValueError(
                f"{len(missing)} of {len(named)} files of the data list are not there; first: {missing[0]}."
            )
        self.samples, self.preprocessing, self.batch_size = samples, preprocessing, batch_size
        self.kept: dict[int, dict[str, torch.Tensor]] = {}
        self.bytes = 0

    def batches(self, part: Sequence[int] | np.ndarray | None = None) -> Iterator[dict[str, torch.Tensor]]:
        """
        Args:
            part: indices of the samples; by default all, in order.

        Yields:
            dicts with ``image`` and ``label``.

        Raises:
            ValueError: when an image cannot be read, or is of another shape than the others of its batch.
        """
        indices = range(len(self.samples)) if part is None else part
        for start in range(0, len(indices), self.batch_size):
            items = [self._item(int(i)) for i in indices[start : start + self.batch_size]]
            shapes = {tuple(item["image"].shape) for item in items}
            if len(shapes) > 1:
                raise ValueError(f"images are of several shapes, {sorted(shapes)[:3]}: give --image_size.")
            yield list_data_collate(items)

    def _item(self, index: int) -> dict[str, torch.Tensor]:
        if index in self.kept:
            return self.kept[index]
        assert self.samples.image is not None
        path, label = self.samples.image[index], self.samples.label[index]
        try:
            made = self.preprocessing({"image": path, "label": label if isinstance(label, str) else int(label)})
            item = {name: torch.as_tensor(made[name]) for name in ("image", "label")}
        except Exception as error:  # whatever is wrong with it, say of which it is
            reason: BaseException = error
            while reason.__cause__ is not None:
                reason = reason.__cause__
            said = (str(reason).splitlines() or [type(reason).__name__])[0]  # MONAI adds what each reader has raised
            raise ValueError(f"{path} cannot be read as the network's input: {said}") from error
        size = sum(tensor.nbytes for tensor in item.values())
        if self.bytes + size <= KEPT_BYTES:
            self.kept[index], self.bytes = item, self.bytes + size
        return item
