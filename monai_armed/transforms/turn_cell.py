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

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform

from ..networks.layers.image_light import light_plane, measure_light

__all__ = ["RandTurnCellD", "RandTurnCellDict", "RandTurnCelld"]


class RandTurnCelld(RandomizableTransform, MapTransform):
    """Turn a square image of a cell by a random number of right angles and mirror half of them, but not the light.

    A cell has no upper side, a microscope's light has: the plane of the background, which tells the cluster and comes
    from one side, stays where it is, and what lies on it is turned. From few cells an autoencoder learns eight times
    as many. See :py:func:`monai_armed.networks.layers.image_light.measure_light`.

    Args:
        keys: keys of images (1, size, size).
        prob: probability that an image is turned or mirrored at all.
        allow_missing_keys: do not raise when a key is missing.

    Raises:
        ValueError: when an image is not (1, size, size).
    """

    def __init__(self, keys: KeysCollection, prob: float = 0.875, allow_missing_keys: bool = False) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.turns, self.mirrored = 0, 0

    def randomize(self, data: Any = None) -> None:
        """Draw one of the seven ways other than none."""
        super().randomize(data)
        self.turns, self.mirrored = divmod(int(self.R.randint(1, 8)), 2)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Turn the image of each key alike.

        Args:
            data: dict with an image (1, size, size) under each key.

        Returns:
            the dict with the turned images.
        """
        d = dict(data)
        self.randomize()
        for key in self.key_iterator(d):
            image = torch.as_tensor(d[key])
            if image.ndim != 3 or image.shape[0] != 1 or image.shape[1] != image.shape[2]:
                raise ValueError(f"{key} must be a grey square (1, size, size) to be turned, got {tuple(image.shape)}.")
            if self._do_transform:
                plane = light_plane(measure_light(image[None]).background, image.shape[1:])[0]
                content = torch.rot90(image - plane, self.turns, (-2, -1))
                d[key] = (content.flip(-1) if self.mirrored else content) + plane
        return d


RandTurnCellD = RandTurnCellDict = RandTurnCelld
