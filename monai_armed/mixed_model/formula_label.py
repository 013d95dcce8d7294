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

"""A formula's label as the numbers that a likelihood takes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

__all__ = ["Label", "read_label"]


class Label(NamedTuple):
    """Numbers (N,), the trials (N,) that shares are of, and the names of levels in the order of their numbers."""

    y: np.ndarray
    trials: np.ndarray | None = None
    levels: list[str] | None = None


def read_label(response: Any, family: str) -> Label:
    """
    Code a label as R does: of two words the first, by the alphabet or the order of the categories, is the failure;
    ordered levels count from 0.

    Args:
        response: of formulae: a column of numbers, one for each word, or successes and trials.
        family: of the likelihood.

    Returns:
        numbers, and with them trials or levels.

    Raises:
        ValueError: when the family takes no such labels.
    """
    values, name, words = np.asarray(response.design_matrix), response.name, response.levels
    if response.kind == "proportion":
        if family != "binomial":
            raise ValueError(f"the label {name!r} is of successes and trials: take family='binomial', not {family!r}.")
        return Label(values[:, 0] / values[:, 1], values[:, 1].astype(float))
    if words is not None:
        return _of_words(values, name, [str(word) for word in words], family)
    if family not in ("bernoulli", "binomial", "ordinal") and pd.api.types.is_bool_dtype(response.design_matrix):
        raise ValueError(f"the label {name!r} is True or False: take family='bernoulli', not {family!r}.")
    values = values.astype(float)
    if values.ndim > 1:
        raise ValueError(f"the label {name!r} has {values.shape[1]} columns: a mixed model has one.")
    if family != "ordinal":
        return Label(values)
    if (values != np.round(values)).any():
        raise ValueError(f"ordered levels must be whole numbers or categories, {name!r} has {values.max():g}.")
    numbers, codes = np.unique(values, return_inverse=True)
    return Label(codes.astype(float), levels=[f"{number:g}" for number in numbers])


def _of_words(one_hot: np.ndarray, name: str, words: list[str], family: str) -> Label:
    codes = one_hot.argmax(1).astype(float)
    if family == "ordinal":
        return Label(codes, levels=words)
    if family not in ("bernoulli", "binomial"):
        raise ValueError(f"the label {name!r} has words such as {words[0]!r}: family {family!r} takes numbers.")
    if len(words) == 1:
        raise ValueError(f"all labels are {words[0]!r}: there is nothing to fit.")
    if len(words) > 2:
        raise ValueError(
            f"the label {name!r} has the levels {words}, but family {family!r} takes two: say which is the success, "
            f"such as {name}['{words[-1]}'] ~ ..., or take family='ordinal'."
        )
    return Label(codes, levels=words)
