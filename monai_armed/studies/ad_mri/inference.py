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

import os
from typing import Any

from monai_armed.data.images import list_images

__all__ = ["images_to_predict"]


def images_to_predict(path: str | os.PathLike[str], site: str | None = None) -> list[dict[str, Any]]:
    """
    New images, whose diagnosis nobody knows, as a MONAI data list.

    Args:
        path: NIfTI file, or folder with such files.
        site: the site that all of them are from; None where it is not known.

    Returns:
        dicts with ``image``, ``file``, ``site`` (empty where not known), ``subject`` (empty: none of the model's) and
        ``label`` (-1).
    """
    known = {"site": "" if site is None else str(site), "subject": "", "label": -1}
    return [{**item, **known} for item in list_images(path)]
