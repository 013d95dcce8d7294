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


"""Saving of figures, alike for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai.utils import optional_import

from ..data.replaced_file import replaced_file

plt, _ = optional_import("matplotlib.pyplot")

__all__ = ["save_figure"]


def save_figure(figure: Any, path: str | Path) -> Path:
    """
    Write a matplotlib figure and close it; the folder is made if need be.

    Args:
        figure: the figure.
        path: file to write.

    Returns:
        the file.
    """
    path = Path(path)
    with replaced_file(path) as file:
        figure.savefig(file, dpi=110, format=path.suffix.lstrip(".") or None)
    plt.close(figure)
    return path
