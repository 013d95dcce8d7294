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
"""Reading what an audit is told of the samples: their files or predictions, labels, sites, subjects and attributes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..data.names import name_key, one_spelling, tidy_name
from ..data.table import MISSING, read_table

__all__ = ["Columns", "Samples", "read_samples"]

MOST_LEVELS = 8  # numbers of more values, such as ages, are cut into bands
BANDS = 3


@dataclass(frozen=True)
class Columns:
    """Names of a data list's columns; those that are ``None`` are not read."""

    label: str = "label"
    site: str = "site"
    subject: str | None = None
    image: str | None = "image"
    prediction: str | None = None
    attributes: tuple[str, ...] = ()

    def needed(self) -> list[str]:
        """All that are read."""
        named = (self.image, self.prediction, self.label, self.site, self.subject, *self.attributes)
        return [name for name in named if name]


@dataclass
class Samples:
    """
    What is known of N samples before a network sees them.

    Attributes:
        label: class (N,), 0 or 1; or paths of masks.
        site: name (N,).
        subject: name (N,); without a column of it every sample is a subject of its own.
        attributes: a column each of levels, as text; empty where not known.
        image: path (N,), or None.
        prediction: number (N,), or None.
        words: the label (N,) as the list has it; of masks None.
    """

    label: np.ndarray
    site: np.ndarray
    subject: np.ndarray
    attributes: pd.DataFrame
    image: np.ndarray | None = None
    prediction: np.ndarray | None = None
    words: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.label)


def read_samples(path: str | Path, columns: Columns, positive: Sequence[str] = (), masks: bool = False) -> Samples:
    """
    Read a data list: a CSV, or JSON as MONAI's tools write it, a list of dicts or lists of dicts by part, all of which
    are taken. Paths are relative to the list's folder. Rows without a label, site, subject, image or prediction are
    left out, which a warning says.

    Args:
        path: the file.
        columns: names of its columns.
        positive: labels that are class 1, in whatever case, all others being class 0; by default labels are 0 and 1.
        masks: whether labels are paths of masks.

    Returns:
        the samples.

    Raises:
        ValueError: when it is no data list, a column is missing, labels are not two classes, a prediction is no number,
            or there are no two sites.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no data list {path}.")
    hint = "say by --label_column, --site_column and the like which column is which."
    reader = _read_json if path.suffix.lower() == ".json" else read_table
    table = reader(path, columns.needed(), hint=hint)
    named = [c for c in columns.needed() if c not in columns.attributes]
    empty = table[named].apply(lambda column: column.str.lower().isin(MISSING)).any(axis=1)
    if empty.any():
        warnings.warn(
            f"{int(empty.sum())} of {len(table)} rows of {path} are left out, as one of {named} is empty.", stacklevel=2
        )
    table = table[~empty].reset_index(drop=True)
    if table.empty:
        raise ValueError(f"no row of {path} has all of {named}.")
    site = np.array(one_spelling(table[columns.site], "site", path))
    if len(np.unique(site)) < 2:
        raise ValueError(f"all {len(site)} rows of {path} are of the site {str(site[0])!r}: an audit compares sites.")
    if len(np.unique(site)) == len(site):
        raise ValueError(
            f"each row of {path} is of a site of its own: an audit needs sites of several images. Is {columns.site!r} "
            "the column of sites?"
        )
    label = _paths(table[columns.label], path) if masks else _classes(table[columns.label], positive, path)
    subject = table[columns.subject].to_numpy(str) if columns.subject else np.arange(len(table)).astype(str)
    attributes = {name: _levels(table[name]) for name in columns.attributes}
    return Samples(
        label,
        site,
        subject,
        pd.DataFrame(attributes, index=table.index),
        _paths(table[columns.image], path) if columns.image else None,
        _numbers(table[columns.prediction], path) if columns.prediction else None,
        None if masks else table[columns.label].map(tidy_name).to_numpy(str),
    )


def _read_json(path: Path, needed: Sequence[str], hint: str) -> pd.DataFrame:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    parts = list(content.values()) if isinstance(content, dict) else [content]
    rows = [row for part in parts if isinstance(part, list) for row in part if isinstance(row, dict)]
    if (
        isinstance(content, dict)
        and content.get("training")
        and len([p for p in parts if p and isinstance(p, list)]) > 1
    ):
        warnings.warn(
            f"of {path} all parts are taken, 'training' too: leave out what the network was trained on.", stacklevel=3
        )
    if not rows:
        raise ValueError(f"{path} has no list of samples: a data list is [{{'image': ..., 'label': ...}}, ...].")
    table = pd.DataFrame(rows)
    if missing := [name for name in needed if name not in table]:
        raise ValueError(f"{path} has no {missing[0]!r}; its samples have {sorted(table)}: {hint}")
    return table.astype(object).where(table.notna(), "").astype(str)


def _paths(column: pd.Series, listed_in: Path) -> np.ndarray:
    return np.array([str(listed_in.parent / name) for name in column])


def _classes(column: pd.Series, positive: Sequence[str], path: Path) -> np.ndarray:
    if positive:
        keys, asked = column.map(name_key), {name_key(word): word for word in positive}
        label = keys.isin(list(asked)).to_numpy(int)
        if none := [word for key, word in asked.items() if label.any() and key not in set(keys)]:
            warnings.warn(f"no label of {path} is {none}, which --positive names.", stacklevel=3)
        if not label.any() or label.all():
            words = sorted(set(column))[:10]
            raise ValueError(f"{'all' if label.all() else 'no'} labels of {path} are {list(positive)}; it has {words}.")
        return label
    number = pd.to_numeric(column.str.strip().str.lower().replace({"false": "0", "true": "1"}), errors="coerce")
    if number.isin((0, 1)).all() and number.nunique() == 1:
        raise ValueError(f"all labels of {path} are {int(number.iloc[0])}: an audit needs both classes.")
    if not number.isin((0, 1)).all():
        words = sorted(set(column))
        got = words if len(words) <= 10 else f"{len(words)} different ones such as {words[:3]}"
        raise ValueError(
            f"labels of {path} must be 0 and 1, got {got}: say by --positive which are class 1 (of more classes one is "
            "audited at a time; of a number, as age, make classes first), or by --segmentation that they are masks."
        )
    return number.to_numpy(int)


def _numbers(column: pd.Series, path: Path) -> np.ndarray:
    number = pd.to_numeric(column, errors="coerce").to_numpy(float)
    if not np.isfinite(number).all():
        wrong = column[~np.isfinite(number)].iloc[0]
        raise ValueError(f"predictions of {path} must be numbers, probabilities or logits, got {wrong!r}.")
    if number.min() >= 0 and number.max() > 1:
        warnings.warn(
            f"predictions of {path} go from {number.min():g} to {number.max():g} and are taken for logits: if they are "
            "percentages, divide them by 100.",
            stacklevel=2,
        )
    return number


def _levels(column: pd.Series) -> pd.Series:
    """Levels of an attribute: words as they are, numbers of many values in bands of as many samples each."""
    known = ~column.str.lower().isin(MISSING)
    number = pd.to_numeric(column.where(known), errors="coerce")
    if number[known].isna().any() or number.nunique() <= MOST_LEVELS:
        return column.where(known, "")
    bands = pd.qcut(number, BANDS, duplicates="drop")
    return (
        bands.map(lambda band: f"{max(band.left, number.min()):.3g} to {band.right:.3g}", na_action="ignore")
        .astype(object)
        .fillna("")
    )
