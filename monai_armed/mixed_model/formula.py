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

"""A mixed effects network of a table from one formula, as lme4 and bambi take it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from monai.utils import optional_import

from ..engines.prepare_batch import PrepareBatchCluster
from ..losses.gaussian_likelihood import GaussianLikelihoodLoss
from ..losses.likelihoods import (
    BinomialLikelihoodLoss,
    LikelihoodLoss,
    NegativeBinomialLikelihoodLoss,
    OrdinalLikelihoodLoss,
    PoissonLikelihoodLoss,
)
from ..networks.nets.armed import ARMED
from ..networks.nets.dfnn import DFNN
from .fit import fit_mixed_model
from .fitted import MixedModelFit

formulae, _ = optional_import("formulae")

__all__ = ["FormulaModel", "from_formula"]

FAMILIES = {
    "gaussian": GaussianLikelihoodLoss,
    "bernoulli": BinomialLikelihoodLoss,
    "binomial": BinomialLikelihoodLoss,
    "poisson": PoissonLikelihoodLoss,
    "negative_binomial": NegativeBinomialLikelihoodLoss,
    "ordinal": OrdinalLikelihoodLoss,
}
UNCORRELATED = re.compile(r"\(([^()|]*)\|\|([^()|]*)\)")


class FormulaModel(NamedTuple):
    """
    What a formula and a table make: the network, the loss of its likelihood, the table as one batch, how a trainer
    prepares it, the names of the network's features, and those of every factor's clusters in the order of their index.
    """

    net: ARMED
    likelihood: LikelihoodLoss
    batch: dict[str, torch.Tensor]
    prepare_batch: PrepareBatchCluster
    feature_names: list[str]
    levels: dict[str, list[str]]
    family: str

    def fit(
        self, method: str | None = None, quadrature_points: int | None = None, fixed: str = "latent"
    ) -> MixedModelFit:
        """
        Fit the mixed model exactly: at once if the network is linear, after training if it is not.

        Args:
            method: by default lme4's, ``"REML"`` for Gaussian labels and ``"Laplace"`` for others.
            quadrature_points: see :py:func:`monai_armed.mixed_model.fit_mixed_model`.
            fixed: see there.

        Returns:
            the fit.
        """
        if method is None:
            method = "REML" if self.family == "gaussian" else "Laplace"
        likelihood = self.family if self.family == "bernoulli" else self.likelihood
        return fit_mixed_model(
            self.net, [self.batch], method, likelihood, fixed, quadrature_points, self.prepare_batch, self.feature_names
        )


def from_formula(
    formula: str,
    data: pd.DataFrame,
    family: str = "gaussian",
    hidden_channels: Sequence[int] = (),
    offset: str | None = None,
    weights: str | None = None,
) -> FormulaModel:
    """
    Make a mixed effects network of a table's columns. Needs formulae: ``pip install "monai_armed[mixed]"``.

    Args:
        formula: such as ``"y ~ age * sex + (1 + age | site) + (1 | site:subject)"``, in the grammar of formulae,
            bambi's parser, with ``(age || site)`` for effects that do not correlate. A column with
            random slopes must be among the fixed effects.
        data: the table, a row a sample.
        family: of the labels: ``"gaussian"``, ``"bernoulli"``, ``"binomial"`` (shares, with the trials as weights),
            ``"poisson"``, ``"negative_binomial"`` or ``"ordinal"`` (levels 0, 1, ...).
        hidden_channels: of the network that takes the place of the linear fixed effects; by default it is linear.
        offset: column that is added to the logits.
        weights: column of weights.

    Returns:
        network, loss, batch and names.

    Raises:
        ValueError: when the family is none of these, the formula has no group, no intercept or no label, a column is
            not there or lacks values, or one with random slopes is not among the fixed effects.
        OptionalImportError: when formulae is not installed.

    Example:
        >>> model = from_formula("Reaction ~ Days + (Days | Subject)", sleepstudy)
        >>> print(model.fit("REML"))
    """
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {list(FAMILIES)}, got {family!r}.")
    apart = {"_".join(re.findall(r"\w+", m.group(2))) for m in UNCORRELATED.finditer(formula)}
    description = formulae.model_description(UNCORRELATED.sub(r"(\1|\2)", formula))
    _check_columns({name for name in (*description.var_names, offset, weights) if name}, data)
    if description.response is None:
        raise ValueError(f"the formula {formula!r} has no label: say 'y ~ ...'.")
    if not description.group_terms:
        raise ValueError(f"the formula {formula!r} has no random effects: add a term such as (1 | site).")
    try:
        common = formulae.design_matrices(_without_groups(description), data)
    except KeyError as error:
        raise ValueError(
            f"the formula {formula!r} has a function {error} that is not known: make a column of it."
        ) from None
    table = common.common.as_dataframe()
    names = [name for name in table.columns if name != "Intercept"]
    values = table[names].to_numpy(float) if names else np.zeros((len(data), 1))
    batch = {"image": _tensor(values), "label": _tensor(np.asarray(common.response)).reshape(len(data))}
    effects, index, levels = _factors(description.group_terms, names, data, apart)
    further = {key: column for key, column in (("offset", offset), ("weight", weights)) if column is not None}
    batch |= index | {key: _tensor(data[column].to_numpy(float)) for key, column in further.items()}
    prepare = PrepareBatchCluster(cluster_key=list(effects), target_keys=list(further))
    likelihood = OrdinalLikelihoodLoss(int(batch["label"].max()) + 1) if family == "ordinal" else FAMILIES[family]()
    net = ARMED(
        DFNN(values.shape[1], hidden_channels=tuple(hidden_channels)),
        {factor: len(of_factor) for factor, of_factor in levels.items()},
        (values.shape[1],),
        adversary=None,
        nonlinear_slopes=False,
        random_effects=effects,
    )
    return FormulaModel(net, likelihood, batch, prepare, names or ["nothing"], levels, family)


def _check_columns(wanted: set[str], data: pd.DataFrame) -> None:
    for name in sorted(wanted):
        if name not in data:
            raise ValueError(f"the table has no column {name!r}, it has {list(data.columns)}.")
        if data[name].isna().any():
            raise ValueError(f"column {name!r} lacks {int(data[name].isna().sum())} values: leave these rows out.")


def _without_groups(description) -> str:
    terms = [term.name for term in description.common_terms]
    if "Intercept" not in terms:
        raise ValueError("the fixed effects need an intercept, which the network's last layer has: leave out the 0.")
    return f"{description.response.term.name} ~ {' + '.join('1' if name == 'Intercept' else name for name in terms)}"


def _factors(terms, names: list[str], data: pd.DataFrame, apart: set[str]) -> tuple[dict, dict, dict]:
    """Random effects of each factor as ARMED takes them, the cluster of each row, and the clusters' names."""
    effects: dict[str, dict] = {}
    index, levels = {}, {}
    for term in terms:
        factor = "_".join(variable.name for variable in term.factor.components)
        if factor not in effects:
            columns = [data[v.name].astype(str) for v in term.factor.components]
            codes, uniques = pd.factorize(columns[0].str.cat(columns[1:], sep=":"), sort=True)
            index[factor], levels[factor] = torch.as_tensor(codes), list(uniques)
            effects[factor] = {"linear_slopes": [], "intercept": False, "learn_prior": True}
        if term.expr.name in ("1", "Intercept"):
            effects[factor]["intercept"] = True
        else:
            effects[factor]["linear_slopes"] += _slopes(term.expr.name, names, data)
    for factor, options in effects.items():
        several = len(options["linear_slopes"]) + options["intercept"] > 1
        options["covariance"] = "full" if several and factor not in apart else "diagonal"
    return effects, index, levels


def _slopes(expression: str, names: list[str], data: pd.DataFrame) -> list[int]:
    """Which of the network's features a term with random slopes is."""
    columns = formulae.design_matrices(f"0 + {expression}", data).common.as_dataframe().columns
    own = [name for name in columns if name in names] or list(columns)
    for name in own:
        if name not in names:
            raise ValueError(
                f"{expression!r} has random slopes but is not among the fixed effects {names}: add it to them."
            )
    return [names.index(name) for name in own]


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(np.asarray(values, dtype=np.float64)).to(torch.get_default_dtype())
