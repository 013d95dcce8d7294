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

"""Transforms one after another, without the record that MONAI keeps of them."""

from __future__ import annotations

from typing import Any

from monai.data import get_track_meta, set_track_meta
from monai.transforms import Compose

__all__ = ["UntrackedCompose"]


class UntrackedCompose(Compose):
    """
    MONAI's ``Compose``, but images are plain tensors within: no transform notes what it did, nor where the image lies
    in the world. The values are the same, and small images take about half the time. For random transforms of
    samples that are loaded and resampled already.

    Args:
        as of ``monai.transforms.Compose``.

    Note:
        MONAI's ``set_track_meta`` is off meanwhile, for the whole process: load no images in another thread then.
        Workers of a ``DataLoader`` are processes of their own.
        Transforms that read that record back, such as ``RandLambdad``, cannot be among these.

    Example:
        >>> transform = UntrackedCompose([RandFlipd("image", prob=0.5), RandAffined("image", prob=1.0)])
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As ``Compose``; its tensors are plain ones."""
        tracked = get_track_meta()
        set_track_meta(False)
        try:
            return super().__call__(*args, **kwargs)
        finally:
            set_track_meta(tracked)
