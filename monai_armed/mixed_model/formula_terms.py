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

"""A formula's text taken apart: label and fixed effects, for the parser of formulae, and terms of random effects."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["RandomTerm", "read_formula"]

OPEN, CLOSED, QUOTES = "([{", ")]}", "`'\""


class RandomTerm(NamedTuple):
    """``(effects | groups)``: what differs between clusters, the columns that make these, and whether it correlates."""

    effects: str
    groups: tuple[str, ...]
    correlated: bool


def read_formula(formula: str) -> tuple[str, str, list[RandomTerm]]:
    """
    Take a formula apart, as lme4 does: every term in brackets with a bar stands for itself, and a nested group
    ``site / subject`` for ``site`` and ``site:subject``.

    Args:
        formula: such as ``"y ~ age + (1 + age | site / subject)"``; ``||`` for effects that do not correlate.

    Returns:
        the label, ``"y"``; the fixed effects, ``"age"``; and the terms of random effects.

    Raises:
        ValueError: when there is no label or no random effect, a bar is not in brackets of its own, or brackets are not
            closed.
    """
    label, *right = _pieces(formula, "~")
    if len(right) != 1 or not label.strip():
        raise ValueError(f"the formula {formula!r} has no label: say 'y ~ ...'.")
    if formula.count("(") != formula.count(")"):
        raise ValueError(f"the formula {formula!r} opens other brackets than it closes.")
    fixed, terms = [], []
    for piece in _pieces(right[0], "+"):
        parts = _pieces(piece[1:-1], "|") if piece.startswith("(") and piece.endswith(")") else [piece]
        if len(parts) > 1:
            terms += _terms(piece, parts)
        elif len(_pieces(piece, "|")) > 1 or re.search(r"\|[^)]*\)", piece):
            raise ValueError(
                f"{piece!r} in the formula {formula!r}: random effects go into brackets of their own, added to the "
                "others, such as '+ (1 | site)'."
            )
        else:
            fixed.append(piece)
    if not terms:
        raise ValueError(f"the formula {formula!r} has no random effects: add a term such as (1 | site).")
    return label, " + ".join(fixed) or "1", terms


def _terms(piece: str, parts: list[str]) -> list[RandomTerm]:
    effects, *between, groups = parts
    if between not in ([], [""]) or not effects or not groups:
        raise ValueError(f"{piece!r} must be of the form (effects | group), or (effects || group).")
    found, outer = [], []
    for level in _pieces(groups, "/"):
        outer += [name[1:-1] if name[:1] == name[-1:] == "`" else name for name in _pieces(level, ":")]
        found.append(RandomTerm(effects, tuple(outer), not between))
    return found


def _pieces(text: str, mark: str) -> list[str]:
    """What stands between the marks that are in no brackets and no quotes."""
    pieces, depth, quote = [""], 0, ""
    for char in text:
        if quote or char in QUOTES:
            quote = "" if char == quote else quote or char
        depth += 0 if quote else (char in OPEN) - (char in CLOSED)
        if char == mark and not depth and not quote:
            pieces.append("")
        else:
            pieces[-1] += char
    return [piece.strip() for piece in pieces]
