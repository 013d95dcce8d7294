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

"""Whether a prepared scan is one to train on, and what its user should know of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["BRAIN_VOLUMES", "MIN_SIMILARITY", "STATUSES", "judge_scan", "usable"]

BRAIN_VOLUMES = (700.0, 2300.0)
"""Least and greatest volume in ml, fluid included, of what is taken for a brain."""

MIN_SIMILARITY = 0.5
"""Least similarity with the template. Phantoms, noise and a neck had at most 0.38, Colin27 with noise 0.66 or more."""

STATUSES = ("left out", "kept", "turned", "ok")
"""The worst first: not to train on; kept against the check; put right; as it should be."""

THICK = 2.0  # mm: from here on the slice is seen to be interpolated
MISSING = 0.2  # of a part of the brain


def usable(status: str) -> bool:
    """Whether scans of this status are trained on."""
    return status != "left out"


def judge_scan(record: Mapping[str, Any], min_similarity: float = MIN_SIMILARITY, keep: bool = False) -> dict[str, str]:
    """
    Args:
        record: what is known of the scan: ``error``, why it could not be prepared, or ``similarity``, ``missing`` (by
            place, see :class:`monai_armed.transforms.RegisterToTemplate`), ``brain_volume_ml``, ``voxel_mm``,
            ``turned``, ``axes`` and ``axes_in_header``.
        min_similarity: least similarity with the template.
        keep: whether it is kept whatever the check says, where there is anything to keep.

    Returns:
        ``status``, one of :py:data:`STATUSES`; ``reason`` for it; and ``remarks``, which do not change it.
    """
    if error := record.get("error"):
        return {"status": "left out", "reason": error, "remarks": ""}
    remarks = "; ".join(_remarks(record))
    objection, turned = _objection(record, min_similarity), _turned(record)
    if objection and not keep:
        return {"status": "left out", "reason": objection, "remarks": remarks}
    status = "kept" if objection else "turned" if turned else "ok"
    return {"status": status, "reason": " ".join(filter(None, (objection, turned))), "remarks": remarks}


def _turned(record: Mapping[str, Any]) -> str:
    if not record["turned"]:
        return ""
    return (
        f"its axes run {record['axes']}, not {record['axes_in_header']} as its header says: put right, but left and "
        "right may be mirrored."
    )


def _objection(record: Mapping[str, Any], min_similarity: float) -> str:
    """Why it is not to be trained on, if so."""
    volume, (low, high) = record["brain_volume_ml"], BRAIN_VOLUMES
    if not low <= volume <= high:
        return (
            f"its brain has {volume:.4g} ml, which no human brain has ({low:.0f} to {high:.0f}): the voxel size in its "
            "header is wrong, or it is an animal's, an infant's or no whole head."
        )
    if record["similarity"] >= min_similarity:
        return ""
    told = f"its similarity with the template is {_below(record['similarity'], min_similarity)}:"
    if lost := _lost(record):
        return f"{told} {lost[0]}; look at its slice, and keep it by --keep if that is good."
    return (
        f"{told} it is no T1-weighted head, or could not be registered; look at its slice, and keep it by --keep or a "
        "lower --min_similarity if that is good."
    )


def _below(value: float, limit: float) -> str:
    """``"0.499, below 0.5"``: as many digits as show that it is below."""
    digits = next((n for n in range(2, 9) if round(value, n) < limit), 9)
    return f"{value:.{digits}f}, below {limit:g}"


def _remarks(record: Mapping[str, Any]) -> list[str]:
    thickest = max(record["voxel_mm"])
    thick = [f"slices of {thickest:.1f} mm: its coronal slice is interpolated"] if thickest > THICK else []
    return thick + _lost(record)


def _lost(record: Mapping[str, Any]) -> list[str]:
    """What of the brain is missing, of each place that lost much, or of the whole."""
    lost = {place: part for place, part in record["missing"].items() if part >= MISSING and place != "brain"}
    if not lost and record["missing"]["brain"] < MISSING / 2:
        return []
    told = ", ".join(f"{place} {part:.0%}" for place, part in lost.items())
    whole = f"{record['missing']['brain']:.0%} of the brain are missing"
    return [f"{whole} ({told})" if told else whole]
