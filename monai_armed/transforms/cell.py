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

"""Loading of grey microscope images as squares of one size."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from PIL import Image, UnidentifiedImageError

__all__ = ["LoadCellD", "LoadCellDict", "LoadCelld"]

TOP_12_BITS, TOP_16_BITS = 4095, 65535


class LoadCelld(MapTransform):
    """Load grey PNG or TIFF files as float32 (1, size, size) in [0, 1], rows downwards.

    Integers are divided by the largest value that their type holds: 255 for 8 bits, 65535 for 16. A 12-bit camera fills
    but the lowest sixteenth of these 16 bits, and its images would come out nearly black: multiply them by 16 first.
    (They cannot be told from dark ones of 16 bits, which must keep their scale; a warning says where an image of 16
    bits has no value above 4095.) Floating-point images must be in [0, 1] already. Grey stored as RGB is accepted and
    an alpha channel is left out. A non-square image is cut to the square in its centre, where the cell is. Another size
    is reached by bilinear interpolation, antialiased where it shrinks.

    Args:
        keys: keys of the paths.
        size: height and width in pixels.
        allow_missing_keys: do not raise when a key is missing.

    Raises:
        FileNotFoundError: when a file does not exist.
        ValueError: when ``size`` is not positive, or a file cannot be read, holds several pages, is coloured, or has
            pixels that are NaN, infinite or outside its range.
    """

    def __init__(self, keys: KeysCollection, size: int, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        if size <= 0:
            raise ValueError(f"size must be positive, got {size}.")
        self.size = size

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load the file of each key.

        Args:
            data: dict with a path under each key.

        Returns:
            the dict with an image (1, size, size) under each key.
        """
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self._resize(torch.from_numpy(_square(_grey(_read(Path(d[key])), d[key]))))
        return d

    def _resize(self, image: torch.Tensor) -> torch.Tensor:
        if image.shape[-1] == self.size:
            return image[None]
        size = (self.size, self.size)
        resized = torch.nn.functional.interpolate(image[None, None], size, mode="bilinear", antialias=True)
        return resized[0].clamp(0, 1)


def _read(file: Path) -> np.ndarray:
    """The pixels of a file: (height, width) or (height, width, channels)."""
    if not file.is_file():
        raise FileNotFoundError(f"cell image {file} does not exist.")
    try:
        with Image.open(file) as image:
            pages = getattr(image, "n_frames", 1)
            pixels = np.asarray(image.convert("RGBA") if image.mode == "P" else image)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        reason = (str(error).splitlines() or [""])[0][:150]
        raise ValueError(
            f"cell image {file} cannot be read as PNG or TIFF ({type(error).__name__}: {reason}); replace it."
        ) from error
    if pages > 1:
        raise ValueError(f"cell image {file} holds {pages} pages; save each frame as a file of its own.")
    return pixels


def _grey(pixels: np.ndarray, file: Any) -> np.ndarray:
    """One channel (height, width) in [0, 1]."""
    if pixels.ndim == 3:
        colours = pixels[..., :1] if pixels.shape[-1] == 2 else pixels[..., :3]
        if (colours != colours[..., :1]).any():
            raise ValueError(f"cell image {file} is a colour image; convert it to grey first.")
        pixels = colours[..., 0]
    top = {"uint8": 255.0, "bool": 1.0}.get(pixels.dtype.name, 1.0 if pixels.dtype.kind == "f" else TOP_16_BITS)
    if missing := int((~np.isfinite(pixels)).sum()):
        raise ValueError(
            f"cell image {file} is NaN or infinite in {missing} of {pixels.size} pixels; give them a value, such as "
            "the background's, or leave the image out."
        )
    if top == TOP_16_BITS and 0 < pixels.max() <= TOP_12_BITS:
        # a text without the file's name, which Python shows once, not for each image
        warnings.warn(
            "there are cell images of 16 bits without a value above 4095, as 12-bit cameras save them: divided by "
            "65535 they are nearly black; multiply the pixels of all images of that camera by 16.",
            stacklevel=3,
        )
    grey = pixels.astype(np.float32) / np.float32(top)
    if grey.min() < 0 or grey.max() > 1:
        raise ValueError(
            f"cell image {file} has values outside 0 to {top:g} ({pixels.min():g} to {pixels.max():g}); save it as "
            "8 or 16 bits."
        )
    return grey


def _square(image: np.ndarray) -> np.ndarray:
    height, width = image.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(image[top : top + side, left : left + side])


LoadCellD = LoadCellDict = LoadCelld
