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

"""A formula's columns and clusters, of the table it was made with and of new ones."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import numpy as np  # also what `np.log` in a formula means
import pandas as pd
from monai.utils import optional_import
from torch import nn

from .formula_label import Label, read_label
from .formula_terms import RandomTerm, read_formula

formulae, _ = optional_import("formulae")

__all__ = ["Block", "FormulaDesign"]

INTERCEPT = "Intercept"
TAKEN = ("image", "label", "offset", "weight")  # keys of the batch


class Block(NamedTuple):
    """Random effects of a factor: which columns have slopes, is there an intercept, and do they correlate."""

    groups: tuple[str, ...]
    columns: list[int]
    intercept: bool
    correlated: bool


class FormulaDesign:
    """
    What a formula makes of a table, and of new ones with the same coding of words, scaling and clusters.

    Args:
        formula: see :py:func:`monai_armed.mixed_model.from_formula`.
        data: the table.
        family: of the likelihood.

    Attributes:
        label: of the table.
        names: of the columns: those of the fixed effects, and then those that only random effects have.
        num_fixed: how many of them the fixed effects have.
        blocks: random effects by the name of their factor.
        levels: names of every factor's clusters in the order of their index: numbers by size, categories by their
            order, words by the alphabet.

    Raises:
        ValueError: when the formula or the table is not one that can be fitted.
    """

    def __init__(self, formula: str, data: pd.DataFrame, family: str) -> None:
        label, fixed, terms = read_formula(formula)
        if INTERCEPT in data and re.search(rf"\b{INTERCEPT}\b", formula):
            raise ValueError(f"a column of the formula is called {INTERCEPT!r}, which is another thing: rename it.")
        check_columns({name for term in terms for name in term.groups}, data)
        data = _ordered(data)
        both = _matrices(f"{label} ~ {fixed}", data)
        if both.common is None or INTERCEPT not in both.common.terms:
            raise ValueError(
                "the fixed effects need an intercept, which the network's last layer has: leave out the 0."
            )
        self.label: Label = read_label(both.response, family)
        self._offsets = [name for name, term in both.common.terms.items() if term.kind == "offset"]
        self._matrices = {"": both.common} | {term.effects: _matrices(term.effects, data).common for term in terms}
        if None in self._matrices.values():
            raise ValueError(f"a term of {formula!r} has no effect that differs between clusters: say 1, or a column.")
        tables = {part: matrix.as_dataframe() for part, matrix in self._matrices.items()}
        self._part_of: dict[str, str] = {}  # a column stands in the first part that has it
        for part, table in tables.items():
            for name in table.columns.difference([INTERCEPT, *self._offsets], sort=False):
                self._part_of.setdefault(name, part)
        self.names = list(self._part_of)
        self.num_fixed = list(self._part_of.values()).count("")
        self.blocks = _blocks([_block(term, list(tables[term.effects]), self.names) for term in terms])
        self._clusters = {block.groups: _cluster_index(data, block.groups) for block in self.blocks.values()}
        self.levels = {name: _cluster_names(self._clusters[block.groups]) for name, block in self.blocks.items()}

    def columns(self, data: pd.DataFrame) -> np.ndarray:
        """Values (N, P) of the columns in ``names``."""
        tables = {part: self._new(part, data) for part in {"", *self._part_of.values()}}
        values = [tables[part][name].to_numpy(float) for name, part in self._part_of.items()]
        return np.column_stack([np.zeros((len(data), 0)), *values])

    def offset(self, data: pd.DataFrame) -> np.ndarray | None:
        """Sum (N,) of what is in ``offset()``, None where nothing is."""
        return self._new("", data)[self._offsets].to_numpy(float).sum(1) if self._offsets else None

    def _new(self, part: str, data: pd.DataFrame) -> pd.DataFrame:
        matrix = self._matrices[part]
        check_columns({name for term in matrix.terms.values() for name in term.var_names}, data)
        return matrix.evaluate_new_data(_ordered(data)).as_dataframe()

    def clusters(self, data: pd.DataFrame) -> dict[str, np.ndarray]:
        """Index (N,) of the cluster for each factor, -1 of clusters that the formula's table does not have."""
        found = {groups: _look_up(known, data) for groups, known in self._clusters.items()}
        return {name: found[block.groups] for name, block in self.blocks.items()}


def check_columns(wanted: Iterable[str], data: pd.DataFrame) -> None:
    """
    Raises:
        ValueError: when the table lacks a column, has it twice, or one lacks values.
    """
    for name in sorted({*wanted} - {""}):  # formulae has '' for a number
        if name not in data:
            raise ValueError(f"the table has no column {name!r}, it has {list(data.columns)}.")
        if list(data.columns).count(name) > 1:
            raise ValueError(f"the table has the column {name!r} twice.")
        if data[name].isna().any():
            raise ValueError(f"column {name!r} lacks {int(data[name].isna().sum())} values: leave these rows out.")


def _matrices(formula: str, data: pd.DataFrame) -> Any:
    try:
        check_columns(formulae.model_description(formula).var_names, data)
        return formulae.design_matrices(formula, data)
    except KeyError as error:
        hint = "say p(successes, trials)" if error.args == ("cbind",) else "make a column of it"
        raise ValueError(f"{formula!r} has a function {error} that is not known: {hint}.") from None


def _ordered(data: pd.DataFrame) -> pd.DataFrame:
    """The table with its categories in their own order, as in R, where formulae has it by the alphabet."""
    categories = [name for name, kind in data.dtypes.items() if isinstance(kind, pd.CategoricalDtype)]
    return data.assign(**{str(name): data[name].cat.remove_unused_categories().cat.as_ordered() for name in categories})


def _block(term: RandomTerm, columns: list[str], names: list[str]) -> Block:
    slopes = [names.index(name) for name in columns if name != INTERCEPT]
    return Block(term.groups, slopes, INTERCEPT in columns, term.correlated and len(columns) > 1)


def _blocks(of_terms: list[Block]) -> dict[str, Block]:
    """
    Terms of the same clusters are independent of one another: one factor if none correlates within, and else one
    factor for each, with the same clusters.
    """
    together: dict[tuple[str, ...], list[Block]] = {}
    for block in of_terms:
        together.setdefault(block.groups, []).append(block)
    words: dict[tuple[str, ...], str] = {}
    for groups in sorted(together, key=len):  # a column has its own name before one that is joined from several
        words[groups] = _factor_name("_".join(groups), words.values())
    blocks: dict[str, Block] = {}
    for groups, found in together.items():
        columns = [column for block in found for column in block.columns]
        if len(set(columns)) < len(columns) or sum(block.intercept for block in found) > 1:
            raise ValueError(
                f"two terms of {':'.join(groups)!r} have the same effect, which cannot be told apart: name it in one "
                "of them (an intercept is in all but those with a 0)."
            )
        if not any(block.correlated for block in found):
            found = [Block(groups, columns, any(block.intercept for block in found), False)]
        blocks[words[groups]] = found[0]
        for number, block in enumerate(found[1:], 1):
            blocks[_factor_name(f"{words[groups]}_{number}", [*words.values(), *blocks])] = block
    return blocks


def _factor_name(name: str, others: Collection[str]) -> str:
    """A word for a factor, which PyTorch and the batch have for nothing else."""
    word = re.sub(r"\W", "_", name)
    word = word if word.isidentifier() else f"_{word}"
    while word in others or word in TAKEN or hasattr(nn.ModuleDict(), word):
        word += "_"
    return word


def _cluster_index(data: pd.DataFrame, groups: tuple[str, ...]) -> pd.MultiIndex:
    """The clusters that there are, in their order."""
    table = pd.DataFrame({place: _sortable(data[name]) for place, name in enumerate(groups)})
    table = table.drop_duplicates().sort_values(list(table))
    return pd.MultiIndex.from_arrays([table[place].astype(object) for place in table], names=list(groups))


def _sortable(column: pd.Series) -> Any:
    try:
        return pd.Categorical(column, ordered=True)
    except TypeError:  # numbers and words
        return pd.Categorical(column.astype(str), ordered=True)


def _cluster_names(known: pd.MultiIndex) -> list[str]:
    names = [":".join(map(str, values)) for values in known]
    return names if len(set(names)) == len(names) else [":".join(map(repr, values)) for values in known]


def _look_up(known: pd.MultiIndex, data: pd.DataFrame) -> np.ndarray:
    found, wanted = [], []
    for name in map(str, known.names):
        if name not in data:
            raise ValueError(f"the table has no column {name!r}, it has {list(data.columns)}.")
        column, level = data[name].astype(object), known.get_level_values(name)
        if _is_text(column) != _is_text(level):  # numbers that were read as words, or the other way
            column, level = column.map(str), level.map(str)
        found.append(level)
        wanted.append(column)
    return pd.MultiIndex.from_arrays(found).get_indexer(pd.MultiIndex.from_arrays(wanted))


def _is_text(values: pd.Series | pd.Index) -> bool:
    return pd.api.types.infer_dtype(values, skipna=True) == "string"
