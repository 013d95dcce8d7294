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

import re
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

GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N", "F", "P", "PA", "RGB", "RGBA", "RGBX")
TOP_14_BITS = 16383
# TIFF tags
BITS, PHOTOMETRIC, DESCRIPTION, SAMPLES, EXTRA_SAMPLES, SAMPLE_FORMAT = 258, 262, 270, 277, 338, 339
ALPHA, WHITE_IS_ZERO, SIGNED = (1, 2), 0, 2


class LoadCelld(MapTransform):
    """Load grey PNG or TIFF files as float32 (1, size, size) in [0, 1], rows downwards.

    Integers are divided by the largest value that their type holds: 255 for 8 bits, 65535 for 16 (127 and 32767 where
    they are signed). A camera of 12 or 14 bits fills but a part of 16, and its images would come out dark: give the
    largest value that it knows as ``max_value``. (They cannot be told from dark ones of 16 bits, which must keep their
    scale; a warning says where an image of 16 bits has no value above 16383.) Floating-point images must be in [0, 1]
    already. TIFFs in which zero is white are inverted. Grey stored as RGB is accepted and an alpha channel is left out.
    A non-square image is cut to the square in its centre, where the cell is. Another size is reached by bilinear
    interpolation, antialiased where it shrinks.

    Args:
        keys: keys of the paths.
        size: height and width in pixels.
        max_value: value of white in files of more than 8 bits, such as 4095 for a camera of 12 bits; by default the
            largest that their type holds.
        allow_missing_keys: do not raise when a key is missing.

    Raises:
        FileNotFoundError: when a file does not exist.
        ValueError: when ``size`` or ``max_value`` is not positive, or a file cannot be read, holds several pages or
            channels, is coloured or of one grey alone, or has pixels that are NaN, infinite or outside its range.
    """

    def __init__(
        self, keys: KeysCollection, size: int, max_value: float | None = None, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if size <= 0:
            raise ValueError(f"size must be positive, got {size}.")
        if max_value is not None and max_value <= 0:
            raise ValueError(f"max_value must be positive, got {max_value}.")
        self.size = size
        self.max_value = max_value

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load the file of each key.

        Args:
            data: dict with a path under each key.

        Returns:
            the dict with an image (1, size, size) under each key.
        """
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self._resize(torch.from_numpy(_square(_grey(*_read(Path(d[key])), self.max_value, d[key]))))
        return d

    def _resize(self, image: torch.Tensor) -> torch.Tensor:
        if image.shape[-1] == self.size:
            return image[None]
        size = (self.size, self.size)
        resized = torch.nn.functional.interpolate(image[None, None], size, mode="bilinear", antialias=True)
        return resized[0].clamp(0, 1)


def _read(file: Path) -> tuple[np.ndarray, dict[int, Any]]:
    """The pixels of a file, (height, width) or (height, width, channels), and its tags if it is a TIFF."""
    if not file.is_file():
        raise FileNotFoundError(f"cell image {file} does not exist.")
    try:
        with Image.open(file) as image:
            pages, stored = getattr(image, "n_frames", 1), str(image.tile)
            tags, mode = dict(getattr(image, "tag_v2", {})), image.mode
            pixels = np.asarray(image.convert("RGBA") if mode in ("P", "PA") else image)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        reason = (str(error).splitlines() or [""])[0][:150]
        hint = "save it as grey of 8 or 16 bits" if _is_tiff(file) else "replace it"
        raise ValueError(
            f"cell image {file} cannot be read as PNG or TIFF ({type(error).__name__}: {reason}); {hint}."
        ) from error
    planes = re.search(r"^images=(\d+)", str(tags.get(DESCRIPTION, "")), flags=re.MULTILINE)  # of ImageJ's stacks
    if (pages := max(pages, int(planes[1]) if planes else 1)) > 1:
        raise ValueError(f"cell image {file} holds {pages} pages; save each frame as a file of its own.")
    channels = tags.get(SAMPLES, 1) - sum(extra in ALPHA for extra in np.ravel(tags.get(EXTRA_SAMPLES, ())))
    if channels not in (1, 3):
        raise ValueError(f"cell image {file} holds {channels} channels; save the one that shows the cell by itself.")
    if mode not in GREY_MODES:
        raise ValueError(f"cell image {file} is a colour image ({mode}); convert it to grey first.")
    if ";16" in stored and pixels.dtype == np.uint8:
        raise ValueError(f"cell image {file} is {mode} of 16 bits, of which 8 would be lost; convert it to grey first.")
    return pixels, tags


def _is_tiff(file: Path) -> bool:
    with open(file, "rb") as stream:
        return stream.read(2) in (b"II", b"MM")


def _top(pixels: np.ndarray, tags: Mapping[int, Any]) -> tuple[np.ndarray, float | None]:
    """One channel of pixels in the type that the file holds, and the largest value of that type; None of 32 bits."""
    if pixels.dtype.kind in "fb":
        return pixels, 1.0
    signed, bits = SIGNED in np.ravel(tags.get(SAMPLE_FORMAT, 1)), int(np.ravel(tags.get(BITS, 16))[0])
    if pixels.dtype == np.uint8:  # also where the file has fewer bits, which Pillow spreads
        return (pixels.view(np.int8), 127.0) if signed else (pixels, 255.0)
    if bits == 32:
        return pixels if signed else pixels.view(np.uint32), None
    return pixels, 32767.0 if signed else 65535.0


def _grey(pixels: np.ndarray, tags: Mapping[int, Any], max_value: float | None, file: Any) -> np.ndarray:
    """One channel (height, width) in [0, 1]."""
    if pixels.ndim == 3:
        colours = pixels[..., :1] if pixels.shape[-1] == 2 else pixels[..., :3]
        if (colours != colours[..., :1]).any():
            raise ValueError(f"cell image {file} is a colour image; convert it to grey first.")
        pixels = np.ascontiguousarray(colours[..., 0])
    pixels, top = _top(pixels, tags)
    if pixels.dtype.itemsize > 1 and pixels.dtype.kind != "f":
        top = _camera_top(pixels, top, max_value, file)
    assert top is not None
    if missing := int((~np.isfinite(pixels)).sum()):
        raise ValueError(
            f"cell image {file} is NaN or infinite in {missing} of {pixels.size} pixels; give them a value, such as "
            "the background's, or leave the image out."
        )
    grey = pixels.astype(np.float32) / np.float32(top)
    if grey.min() < 0 or grey.max() > 1:
        hint = "save it as 8 or 16 bits" if max_value is None else "give its largest value as max_value"
        raise ValueError(
            f"cell image {file} has values outside 0 to {top:g} ({pixels.min():g} to {pixels.max():g}); {hint}."
        )
    if grey.size > 1 and grey.min() == grey.max():
        raise ValueError(f"cell image {file} is constant (every pixel is {pixels.flat[0]:g}); leave it out.")
    # Pillow inverts images of 1 and 8 bits itself
    return 1 - grey if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO and pixels.dtype.itemsize > 1 else grey


def _camera_top(pixels: np.ndarray, top: float | None, max_value: float | None, file: Any) -> float:
    """Value of white in pixels of 16 or 32 bits."""
    if max_value is not None:
        return float(max_value)
    if top is None:
        raise ValueError(
            f"cell image {file} holds integers of 32 bits, of which the largest value is not known: give the value of "
            "white as max_value, or save it as 8 or 16 bits."
        )
    if 0 < pixels.max() <= TOP_14_BITS:
        # a text without the file's name, which Python shows once, not for each image
        warnings.warn(
            f"there are cell images of 16 bits without a value above {TOP_14_BITS}, as cameras of 12 or 14 bits save "
            "them: divided by the largest value of 16 bits they are dark; give the camera's largest value, 4095 or "
            f"{TOP_14_BITS}, as max_value of LoadCelld (to a bundle: --load_image#max_value {TOP_14_BITS}).",
            stacklevel=3,
        )
    return top


def _square(image: np.ndarray) -> np.ndarray:
    height, width = image.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(image[top : top + side, left : left + side])


LoadCellD = LoadCellDict = LoadCelld
