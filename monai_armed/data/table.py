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
"""Tables as people save them, and classes as they write them."""

from __future__ import annotations

import codecs
import csv
import os
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from .names import name_key

__all__ = ["MISSING", "check_classes", "class_labels", "labelled_rows", "read_table"]

MISSING = frozenset({"", "na", "n/a", "nan", "<na>", "#n/a", "null"})
"""What R, pandas, BIDS and spreadsheets write where there is no value, in lower case."""


def read_table(
    path: str | os.PathLike[str], needed: Sequence[str] = (), used: Sequence[str] = (), hint: str = ""
) -> pd.DataFrame:
    """
    Read a table as text. Columns may be parted by commas, semicolons or tabs; the encoding may be UTF-8, UTF-16 with
    its mark, or Latin-1. Blanks around names and values, empty rows, and rows that repeat another one exactly (with a
    warning) are left out. A column whose name differs from one that is asked for in case alone is that one.

    Args:
        path: the file.
        needed: columns without which the table is of no use.
        used: columns that are read where there are any.
        hint: what to do about a column that is missing, for the error message.

    Returns:
        the table; row ``i`` of its index is line ``i + 2`` of the file, empty lines not counted.

    Raises:
        ValueError: when it is no table, has no rows, or lacks a needed column.
    """
    encoding = _encoding(path)
    try:
        with open(path, encoding=encoding, newline="") as text:
            header = text.readline()
        separator = max(",;\t", key=header.count)  # spreadsheets take semicolons where the comma is the decimal sign
        table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding=encoding)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a table: {str(error).strip()}") from error
    table = table.reset_index(drop=True).fillna("").rename(columns=lambda name: str(name).strip())
    table = table.apply(lambda column: column.str.strip())
    table = table[(table != "").any(axis=1)]
    if table.empty:
        raise ValueError(f"{path} has no rows.")
    repeated = table.duplicated()
    if repeated.any():
        warnings.warn(
            f"{path} has {int(repeated.sum())} rows that repeat another one exactly (first: line "
            f"{table.index[repeated][0] + 2}), which are left out.",
            stacklevel=2,
        )
    return _with_columns(table[~repeated], path, needed, used, hint)


def _encoding(path: str | os.PathLike[str]) -> str:
    """UTF-16 where its mark says so, UTF-8 where the bytes are, else Latin-1, in which any byte is a letter."""
    content = Path(path).read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig"


def _with_columns(
    table: pd.DataFrame, path: str | os.PathLike[str], needed: Sequence[str], used: Sequence[str], hint: str
) -> pd.DataFrame:
    for column in (*needed, *used):
        alike = [name for name in table.columns if name_key(name) == name_key(column)]
        if column not in table.columns and len(alike) == 1:
            table = table.rename(columns={alike[0]: column})
    for column in needed:
        if column not in table.columns:
            has = ", ".join(map(repr, table.columns))
            raise ValueError(f"{path} has no column {column!r}; it has {has}{f': {hint}' if hint else '.'}")
    return table


def check_classes(classes: Any, name: str = "diagnoses") -> None:
    """
    See that a user's words are given as two classes.

    Args:
        classes: class, 0 or 1, of each word; None where the user gives none.
        name: of the argument, for the error message.

    Raises:
        ValueError: when it is no mapping, or a class is neither 0 nor 1.
    """
    if classes is None:
        return
    if not isinstance(classes, Mapping):
        raise ValueError(f"{name} must say which word is 0 and which 1, as {{'CN': 0, 'AD': 1}} does; got {classes!r}.")
    if wrong := {word: label for word, label in classes.items() if label not in (0, 1)}:
        raise ValueError(f"{name} must give 0 or 1 for each word, got {wrong}.")


def class_labels(words: Sequence[str], diagnoses: Mapping[Any, int]) -> list[int | None]:
    """
    Class label of each word of a table.

    Args:
        words: what the table has. Case does not count, ``1.0`` is 1, and the label itself is a word for it, as are
            ``True`` and ``False`` where the labels are 0 and 1.
        diagnoses: class label of each word.

    Returns:
        the labels; None for a word that is not among ``diagnoses``.
    """
    labels = set(diagnoses.values())
    known = {name_key(label): label for label in labels}
    if labels <= {-1, 0, 1}:  # -1: none
        known = {"true": 1, "false": 0} | known
    known |= {name_key(word): label for word, label in diagnoses.items()}
    exact = {str(word): label for word, label in diagnoses.items()}
    return [exact.get(word, known.get(name_key(word))) for word in words]


def labelled_rows(
    table: pd.DataFrame, column: str, diagnoses: Mapping[Any, int], path: str | os.PathLike[str]
) -> pd.DataFrame:
    """
    The rows of a table that have one of some diagnoses. The others are left out, and a warning counts them by word.

    Args:
        table: the table.
        column: its column with the diagnosis.
        diagnoses: class label of each diagnosis, see :py:func:`class_labels`.
        path: of the table, for the messages.

    Returns:
        these rows, with the class label as the column ``"class"``.

    Raises:
        ValueError: when no row has one of the diagnoses.
    """
    labels = class_labels(table[column].tolist(), diagnoses)
    others = Counter(word or "empty" for word, label in zip(table[column], labels) if label is None)
    counted = ", ".join(f"{word} ({count})" for word, count in others.most_common(10))
    known = ", ".join(map(str, diagnoses))
    if sum(others.values()) == len(table):
        raise ValueError(
            f"{path} has in column {column!r} only unknown values {list(others)[:5]}; known are {known}: say by "
            "diagnosis_column which column it is, or by diagnoses which class a word stands for."
        )
    if others:
        warnings.warn(
            f"{sum(others.values())} of {len(table)} rows of {path} are left out, as their {column!r} is none of "
            f"{known}: {counted}.",
            stacklevel=3,
        )
    return table.assign(**{"class": pd.Series(labels, table.index, dtype="Int64")}).dropna(subset=["class"])
