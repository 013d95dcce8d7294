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
"""Names of sites, batches, subjects and classes: what is one name, however a table writes it."""

from __future__ import annotations

import functools
import re
import unicodedata
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

__all__ = ["name_key", "one_spelling", "subject_key", "tidy_name"]


def tidy_name(name: Any) -> str:
    """
    A name without the blanks around it, and a whole number without the decimals that pandas adds to a column in which
    one is missing: ``"5.0"`` is ``"5"``, ``"002"`` stays.
    """
    return _tidy(str(name))


@functools.lru_cache(maxsize=2**16)  # a table has each of its names many times
def _tidy(text: str) -> str:
    text = " ".join(unicodedata.normalize("NFC", text).split())
    return re.sub(r"^(-?\d+)\.0*$", r"\1", text)


def name_key(name: Any) -> str:
    """
    What two spellings of one name have in common: neither case nor leading zeros nor decimals of a number count, so
    that ``"Mayo"`` is ``"mayo"``, and ``"002"``, ``"2"`` and ``"2.0"`` are one.
    """
    text = tidy_name(name).casefold()
    return text.lstrip("0") or "0" if text.isdecimal() else text


def subject_key(name: Any) -> str:
    """:py:func:`name_key` of a subject, which BIDS writes with ``sub-`` before it and a table without."""
    return name_key(re.sub(r"^sub-", "", tidy_name(name), flags=re.IGNORECASE))


def one_spelling(names: Iterable[Any], what: str, where: Any) -> list[str]:
    """
    Names in which each is spelled in one way, its most frequent one; a warning says what has been taken as one.

    Args:
        names: as a table has them.
        what: of whom, such as ``"site"``.
        where: the table, for the warning.

    Returns:
        the names, tidy, in the same order.
    """
    tidy = [tidy_name(name) for name in names]
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for name in tidy:
        spellings[name_key(name)][name] += 1
    several = {key: counts for key, counts in spellings.items() if len(counts) > 1}
    if several:
        shown = "; ".join(" and ".join(map(repr, counts)) for counts in list(several.values())[:5])
        warnings.warn(
            f"{where} writes {len(several)} names of a {what} in more than one way ({shown}), which are taken as one: "
            "give them other names if they are not.",
            stacklevel=3,
        )
    chosen = {key: counts.most_common(1)[0][0] for key, counts in spellings.items()}
    return [chosen[name_key(name)] for name in tidy]
