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

"""Known features of a cell, measured in its image by scikit-image: what a biologist asks of a latent or a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from monai.utils import optional_import
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import binary_fill_holes
from scipy.stats import linregress
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

filters, HAS_SKIMAGE = optional_import("skimage.filters")
measure, _ = optional_import("skimage.measure")
morphology, _ = optional_import("skimage.morphology")

__all__ = ["CELL_FEATURES", "HAS_SKIMAGE", "cell_features", "cell_mask", "feature_correlations", "feature_slopes"]

CELL_FEATURES = ("size", "elongation", "brightness", "texture_energy", "granularity")

_LEAST_CONTRAST = 3.0  # s.d.s of the background by which a cell must stand out
_LEAST_AREA = 0.002  # of the image


def cell_mask(image: ArrayLike) -> NDArray[np.bool_]:
    """
    The cell in the middle of a grey image: of all regions that depart from the background by Otsu's threshold, in
    either direction, the one nearest to the middle, without holes.

    Args:
        image: (H, W), 0 to 1.

    Returns:
        mask (H, W), empty where nothing stands out.

    Raises:
        ValueError: when the image has another number of dimensions, or a pixel is not finite.
    """
    values = np.asarray(image, dtype=float)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError(f"a cell is looked for in a finite grey image (H, W), got the shape {values.shape}.")
    departure = filters.gaussian(np.abs(values - np.median(values)), sigma=min(values.shape) / 64)
    noise = 1.4826 * np.median(departure)
    threshold = max(filters.threshold_otsu(departure), _LEAST_CONTRAST * noise, 1 / 255)
    regions = measure.label(binary_fill_holes(departure > threshold))
    found = [r for r in measure.regionprops(regions) if r.area >= _LEAST_AREA * values.size]
    if not found:
        return np.zeros(values.shape, dtype=bool)
    middle = (np.array(values.shape) - 1) / 2
    nearest = min(found, key=lambda region: np.hypot(*(region.coords - middle).T).min())
    return regions == nearest.label


def cell_features(images: ArrayLike) -> pd.DataFrame:
    """
    Known features of the cell in the middle of each image.

    Args:
        images: (N, H, W) or (N, 1, H, W), 0 to 1.

    Returns:
        a row for each image; NaN where no cell is found:

        - ``size``: diameter of the circle of the cell's area, in pixels;
        - ``elongation``: its longer axis by its shorter one;
        - ``brightness``: its mean grey value above the background's;
        - ``texture_energy``: root mean square of the detail inside it, between Gaussians with an s.d. of a 128th and
          of a 40th of the image, by its brightness;
        - ``granularity``: the same of the finer detail, below a 128th of the image: grains. (Openings, as granularity
          is often measured with, do not see grains of a pixel or two.)

    Raises:
        ValueError: when the images have another shape.
    """
    stack = np.asarray(images, dtype=float)
    if stack.ndim == 4 and stack.shape[1] == 1:
        stack = stack[:, 0]
    if stack.ndim != 3:
        raise ValueError(f"images must be (N, H, W) or (N, 1, H, W), got the shape {np.shape(images)}.")
    return pd.DataFrame([_features(image) for image in stack], columns=list(CELL_FEATURES))


def _features(image: NDArray[np.float64]) -> list[float]:
    mask = cell_mask(image)
    if not mask.any():
        return [float("nan")] * len(CELL_FEATURES)
    side = min(image.shape)
    region = measure.regionprops(mask.astype(np.uint8))[0]
    background = float(np.median(image[~mask])) if (~mask).any() else float(image.min())
    brightness = float(image[mask].mean()) - background
    inside = morphology.erosion(mask, morphology.disk(max(1, side // 64)))  # the edge is no texture
    inside = inside if inside.any() else mask
    detail, grains = (
        filters.difference_of_gaussians(image, low, high)[inside]
        for low, high in ((side / 128, side / 40), (0, side / 128))
    )
    scale = max(abs(brightness), 1 / 255)
    return [
        float(region.equivalent_diameter_area),
        float(region.axis_major_length / max(region.axis_minor_length, 1.0)),
        brightness,
        *(float(np.sqrt(np.square(part).mean())) / scale for part in (detail, grains)),
    ]


def feature_correlations(
    train_latent: ArrayLike, train_features: pd.DataFrame, latent: ArrayLike, features: pd.DataFrame
) -> pd.DataFrame:
    """
    What a latent holds, in a biologist's words: how well each known feature can be read from it by a ridge regression
    (its penalty chosen by generalised cross-validation on the training cells), as the correlation on other cells.

    Args:
        train_latent: latents (N, D) that the regression is fitted on, a row for each cell.
        train_features: of the same cells, a column for each feature; a cell where it is NaN does not count.
        latent: latents (M, D) of other cells.
        features: of these, with the same columns.

    Returns:
        a row for each feature: ``feature``, correlation ``r`` and number of ``cells``; NaN where fewer than three cells
        have it or it does not vary.

    Raises:
        ValueError: when the numbers of rows or the columns differ.
    """
    learn, held_out = np.asarray(train_latent, dtype=float), np.asarray(latent, dtype=float)
    if len(learn) != len(train_features) or len(held_out) != len(features):
        raise ValueError(
            f"{len(learn)} and {len(held_out)} latents come with {len(train_features)} and {len(features)} rows of "
            "features: give one row for each latent."
        )
    if list(train_features) != list(features):
        raise ValueError(f"train_features has the columns {list(train_features)}, features has {list(features)}.")
    rows = []
    for name in features:
        y, y_test = (table[name].to_numpy(dtype=float) for table in (train_features, features))
        fit, test = np.isfinite(y), np.isfinite(y_test)
        r = float("nan")
        if min(fit.sum(), test.sum()) > 2 and np.ptp(y[fit]) > 0 and np.ptp(y_test[test]) > 0:
            model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 13))).fit(learn[fit], y[fit])
            predicted = model.predict(held_out[test])
            r = float(np.corrcoef(predicted, y_test[test])[0, 1]) if np.ptp(predicted) > 0 else 0.0
        rows.append({"feature": name, "r": r, "cells": int(test.sum())})
    return pd.DataFrame(rows)


def feature_slopes(
    pictures: pd.DataFrame, images: pd.DataFrame, names: Sequence[str] = ("size", "elongation")
) -> pd.DataFrame:
    """
    Whether cells in pictures are as large and as elongated as in the images that the pictures were made from: the slope
    of a feature's regression on its value in the image, 1 where the picture keeps it, 0 where all cells look alike.

    Args:
        pictures: :py:func:`cell_features` of the pictures.
        images: those of the images, in the same order.
        names: the features.

    Returns:
        a row for each feature: ``feature``, ``slope`` and ``cells``, those found in the picture and in the image; NaN
        where these are fewer than three or the feature does not vary.

    Raises:
        ValueError: when the numbers of rows differ.
    """
    if len(pictures) != len(images):
        raise ValueError(f"{len(pictures)} pictures come with {len(images)} images: give one for each.")
    rows = []
    for name in names:
        x, y = images[name].to_numpy(dtype=float), pictures[name].to_numpy(dtype=float)
        both = np.isfinite(x) & np.isfinite(y)
        varies = both.sum() > 2 and np.ptp(x[both]) > 0
        slope = float(linregress(x[both], y[both]).slope) if varies else float("nan")
        rows.append({"feature": name, "slope": slope, "cells": int(both.sum())})
    return pd.DataFrame(rows)
