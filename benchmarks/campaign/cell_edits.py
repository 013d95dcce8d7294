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

"""What is done to the cell images before a case: each function gives an edit, or is one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from .case import Place


def rows(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Place], None]:
    """An edit of cells.csv."""

    def edit(place: Place) -> None:
        path = place.data / "cells.csv"
        change(pd.read_csv(path, dtype=str, keep_default_na=False)).to_csv(path, index=False)

    return edit


def content(change: Callable[[bytes], bytes]) -> Callable[[Place], object]:
    """An edit of the bytes of cells.csv."""

    def edit(place: Place) -> None:
        path = place.data / "cells.csv"
        path.write_bytes(change(path.read_bytes()))

    return edit


def column(name: str, change: Callable[[pd.Series], pd.Series | list | str]) -> Callable[[Place], None]:
    """An edit of one column of cells.csv."""
    return rows(lambda given: given.assign(**{name: change(given[name])}))


def names_alone(place: Place) -> Path:
    """Leave the images without a table, to be read by their names; returns the first."""
    (place.data / "cells.csv").unlink(missing_ok=True)
    return first(place)


def first(place: Place) -> Path:
    """The first image, one of training."""
    return sorted(place.data.glob("*.png"))[0]


def image(change: Callable[[Path], object], count: int = 1) -> Callable[[Place], object]:
    """An edit of the files of the first images; of four neighbours one at least is trained on."""
    return lambda place: [change(path) for path in sorted(place.data.glob("*.png"))[:count]]


def pixels(
    change: Callable[[np.ndarray], np.ndarray], suffix: str = ".tif", count: int | None = None
) -> Callable[[Place], None]:
    """An edit that saves what becomes of the pixels (in single precision, 0 to 1) as files of another kind."""

    def edit(place: Place) -> None:
        chosen = sorted(place.data.glob("*.png"))[:count]
        for path in chosen:
            grey = np.asarray(Image.open(path)).astype(np.float32) / 255
            path.unlink()
            Image.fromarray(change(grey)).save(path.with_suffix(suffix))
        stems = {path.stem for path in chosen}
        column("file", lambda names: [n.replace(".png", suffix) if n[:-4] in stems else n for n in names])(place)

    return edit


def white_is_zero(place: Place) -> None:
    """TIFFs whose tag says that 0 is white: what is dark in the file is bright in the picture."""

    def save(grey: np.ndarray) -> np.ndarray:
        return (255 * (1 - grey)).astype(np.uint8)

    pixels(save)(place)
    for path in place.data.glob("*.tif"):
        with Image.open(path) as given:
            given.load()
            given.save(path, tiffinfo={262: 0})


def stack(place: Place) -> None:
    """TIFFs of three planes in the place of the first images."""
    names = {}
    for path in sorted(place.data.glob("*.png"))[:4]:
        with Image.open(path) as plane:
            plane.save(path.with_suffix(".tif"), save_all=True, append_images=[plane, plane])
        path.unlink()
        names[path.name] = path.with_suffix(".tif").name
    column("file", lambda files: files.replace(names))(place)


def twin(place: Place) -> None:
    """A second image whose name differs from the first one's in its ending alone."""
    path = first(place)
    with Image.open(path) as image_of_cell:
        image_of_cell.save(path.with_suffix(".tif"))
    rows(lambda given: pd.concat([given, given[given["file"] == path.name].assign(file=path.stem + ".tif")]))(place)


def numbered_by_batch(place: Place) -> None:
    """Cells are numbered anew in each batch."""

    def change(given: pd.DataFrame) -> pd.DataFrame:
        return given.assign(cell=given.groupby("batch").cumcount().astype(str))

    rows(change)(place)


def another_laboratory(place: Place) -> None:
    """Other images, batches, cells and file names: nothing of it was trained on."""
    for path in place.data.glob("*.png"):
        with Image.open(path) as cell:
            mirrored = cell.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        mirrored.save(path)
    renamed(place)


def renamed(place: Place) -> None:
    """Other batches, cells and file names, but the same images."""
    for path in list(place.data.glob("*.png")):
        path.rename(path.with_name("lab_" + path.name))
    rows(lambda given: given.assign(file="lab_" + given["file"], batch="lab_" + given["batch"]))(place)
