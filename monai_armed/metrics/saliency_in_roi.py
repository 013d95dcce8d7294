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

"""How much of a saliency map lies in the region where the truth says it should, beside what chance would give."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import signal, stats

__all__ = ["interval_by_subject", "saliency_in_roi"]


def saliency_in_roi(saliency: ArrayLike, roi: ArrayLike, brain: ArrayLike) -> dict[str, float]:
    """
    Share of an image's saliency within the true region of interest, and how chance would do.

    The share is the sum of the non-negative saliency in the region over that in the whole image, background included.
    Saliency spread evenly over the brain has the region's share of the brain's area. A blob in the middle of the brain,
    wherever the disease is, would have more; so the share is also ranked among those of the same region at all other
    positions: every translation by whole pixels (without rotation) that leaves the whole of it in the brain.

    Args:
        saliency: map (H, W), or (H, W, D); negative values count as 0.
        roi: the region, the same shape, boolean.
        brain: where there is brain, the same shape, boolean.

    Returns:
        ``share``, and ``rank``, the part of the positions with less saliency in them, ties counted half: 0.5 where
        all have the same, near 1 where hardly any position has more. Both are NaN where there is no positive saliency.

    Raises:
        ValueError: when the shapes differ, the saliency is not finite, or the region or the brain is empty.
    """
    values = np.asarray(saliency, dtype=float)
    region, head = np.asarray(roi, dtype=bool), np.asarray(brain, dtype=bool)
    if not values.shape == region.shape == head.shape:
        raise ValueError(
            f"saliency, roi and brain must have one shape, got {values.shape}, {region.shape} and {head.shape}."
        )
    if not np.isfinite(values).all():
        raise ValueError("the saliency has NaN or infinite values: look at the network's outputs and gradients.")
    if not region.any() or not head.any():
        raise ValueError(
            "the region or the brain is empty, so nothing can lie in it: see that the masks fit the image."
        )
    values = values.clip(min=0.0)
    if not values.any():
        return {"share": float("nan"), "rank": float("nan")}
    values = values / values.sum()
    return {"share": float(values[region].sum()), "rank": _rank(values, region, head)}


def _rank(values: np.ndarray, region: np.ndarray, head: np.ndarray) -> float:
    """Mid-rank of the region's saliency among that at all positions, its own among them."""
    places = np.nonzero(region)
    start = tuple(int(p.min()) for p in places)
    shape = region[tuple(slice(int(p.min()), int(p.max()) + 1) for p in places)].astype(float)
    inside = signal.correlate(values, shape, mode="valid")
    covered = signal.correlate(head.astype(float), shape, mode="valid")
    allowed = covered > shape.sum() - 0.5
    allowed[start] = True
    difference = inside[allowed] - inside[start]
    tied = np.abs(difference) < 1e-9  # by the Fourier transform equal sums differ by rounding
    return float(((difference < 0) & ~tied).mean() + 0.5 * tied.mean())


def interval_by_subject(
    values: ArrayLike, subject: ArrayLike, level: float = 0.95, num_resamples: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """
    Mean over subjects, with its percentile interval by bootstrap over subjects: the images of one are not independent.

    Args:
        values: (N,); NaN are left out.
        subject: name of each value's subject, (N,).
        level: confidence level.
        num_resamples: number of bootstrap samples.
        seed: of the bootstrap.

    Returns:
        mean of the subjects' means, lower and upper limit; the limits are NaN where there are fewer than two subjects,
        all three where there is none.
    """
    table = pd.DataFrame({"value": np.asarray(values, dtype=float), "subject": np.asarray(subject)})
    means = table.dropna().groupby("subject")["value"].mean().to_numpy()
    mean = float(means.mean()) if len(means) else float("nan")
    if len(means) < 2:
        return mean, float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    found = stats.bootstrap(
        (means,), np.mean, n_resamples=num_resamples, confidence_level=level, method="percentile", random_state=rng
    )
    return mean, float(found.confidence_interval.low), float(found.confidence_interval.high)
