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

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from monai.networks.utils import eval_mode

from ..engines.prepare_batch import PrepareBatchCluster
from ..losses.likelihoods import (
    BinomialLikelihoodLoss,
    GaussianLikelihoodLoss,
    LikelihoodLoss,
    NegativeBinomialLikelihoodLoss,
    OrdinalLikelihoodLoss,
    PoissonLikelihoodLoss,
)
from ..networks.nets.armed import ARMED
from ..networks.nets.dfnn import DFNN
from .fit import fit_mixed_model
from .fitted import MixedModelFit
from .formula_design import FormulaDesign, check_columns

__all__ = ["FormulaModel", "from_formula"]

FAR = 1e6  # a column's mean in units of its s.d., from which a fit in double precision loses digits that show

FAMILIES = {
    "gaussian": GaussianLikelihoodLoss,
    "bernoulli": BinomialLikelihoodLoss,
    "binomial": BinomialLikelihoodLoss,
    "poisson": PoissonLikelihoodLoss,
    "negative_binomial": NegativeBinomialLikelihoodLoss,
    "ordinal": OrdinalLikelihoodLoss,
}


class FormulaModel(NamedTuple):
    """
    What a formula and a table make: the network, the loss of its likelihood, the table as one batch, how a trainer
    prepares it, the names of the network's features, those of every factor's clusters in the order of their index, the
    family, the names of the label's levels in the order of their numbers (None of numbers), what codes new tables, and
    the column of the offset.
    """

    net: ARMED
    likelihood: LikelihoodLoss
    batch: dict[str, torch.Tensor]
    prepare_batch: PrepareBatchCluster
    feature_names: list[str]
    levels: dict[str, list[str]]
    family: str
    label_levels: list[str] | None
    coding: FormulaDesign
    offset: str | None

    def fit(
        self, method: str | None = None, quadrature_points: int | None = None, fixed: str = "latent"
    ) -> MixedModelFit:
        """
        Fit the mixed model exactly: at once if the network is linear, after training if it is not. The network is in
        evaluation mode then, so that it predicts.

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
        fit = fit_mixed_model(
            self.net, [self.batch], method, likelihood, fixed, quadrature_points, self.prepare_batch, self.feature_names
        )
        fit.levels = self.levels
        self.net.eval()
        return fit

    def design(self, data: pd.DataFrame) -> dict[str, torch.Tensor]:
        """
        A table as a batch, with the coding of the table that the model was made with: its words, the mean and s.d. of
        its ``scale()``, its clusters by their names.

        Args:
            data: with the columns of the formula, but for the label.

        Returns:
            ``"image"``, the network's input (N, P); for each factor the index of the cluster (N,), -1 of new ones; and
            the ``"offset"`` (N,) if there is one.

        Raises:
            ValueError: when a column is not there or lacks values, or has words that the model's table had not.
        """
        clusters = {name: torch.tensor(index) for name, index in self.coding.clusters(data).items()}
        return _columns(self.coding, data, self.offset) | clusters

    def predict(self, data: pd.DataFrame | None = None, effects: str = "mixed", scale: str = "link") -> np.ndarray:
        """
        What lme4's ``predict`` gives, with the offset added; the prediction for the population where a cluster is new.

        Args:
            data: a table as for :py:meth:`design`; by default the model's own. For fixed effects it need not have the
                clusters.
            effects: ``"mixed"``, or ``"fixed"`` (lme4: ``re.form = NA``).
            scale: ``"link"`` for logits, or logarithms of counts; ``"response"`` for probabilities, counts, and of
                ordinal labels the probability of each level.

        Returns:
            predictions (N,), or probabilities (N, levels).

        Raises:
            ValueError: as :py:meth:`design`, or when ``effects`` or ``scale`` is not one of these.
        """
        if scale not in ("link", "response"):
            raise ValueError(f"scale must be 'link' or 'response', got {scale!r}.")
        if data is None:
            batch = self.batch
        else:
            batch = _columns(self.coding, data, self.offset) if effects == "fixed" else self.design(data)
        clusters = {name: batch[name] for name in self.levels if name in batch}
        with torch.no_grad(), eval_mode(self.net):
            logits = self.net(batch["image"], clusters, effects)
            logits = logits + batch["offset"][:, None] if "offset" in batch else logits
            predicted = self.likelihood.mean(logits) if scale == "response" else logits
        return predicted.squeeze(1).numpy()


def from_formula(
    formula: str,
    data: pd.DataFrame,
    family: str = "gaussian",
    hidden_channels: Sequence[int] = (),
    offset: str | None = None,
    weights: str | None = None,
) -> FormulaModel:
    """
    Make a mixed effects network of a table's columns, in double precision. Needs formulae:
    ``pip install "monai_armed[mixed]"``.

    The formula means what it means to lme4: terms of the same factor are independent of one another, and a random
    effect may be of a column that is not among the fixed ones. Of ``(1 + x | site) + (0 + z | site)`` the second term
    is the factor ``site_1``, lme4's ``site.1``. A factor is called like its column, ``site_subject`` if it is of two,
    with ``_`` for what is in no word, and at the end where PyTorch or the batch has the word for something else.
    Effects of ``(f || site)`` do not correlate, also where ``f`` has several levels.

    Args:
        formula: such as ``"y ~ age * sex + offset(log_time) + (1 + age | site) + (1 | site:subject)"``, in the grammar
            of formulae, bambi's parser, with ``(age || site)`` for effects that do not correlate.
        data: the table, a row a sample.
        family: of the labels: ``"gaussian"``, ``"bernoulli"`` (numbers 0 and 1, True and False, or two words, of which
            the first by the alphabet or the order of the categories is the failure), ``"binomial"``
            (``p(successes, trials)``, or shares with the trials as weights), ``"poisson"``, ``"negative_binomial"`` or
            ``"ordinal"`` (whole numbers or categories in their order). True and False are never taken for numbers of
            another family.
        hidden_channels: of the network that takes the place of the linear fixed effects; by default it is linear.
        offset: column that is added to the logits.
        weights: column of weights.

    Returns:
        network, loss, batch and names, and what codes new tables.

    Raises:
        ValueError: when the family is none of these, the formula has no group, no intercept or no label, a column is
            not there, lacks values or is so far from zero that a fit would lose its digits, or labels are not the
            family's.
        OptionalImportError: when formulae is not installed.

    Example:
        >>> model = from_formula("Reaction ~ Days + (Days | Subject)", sleepstudy)
        >>> print(model.fit("REML"))
        >>> model.predict(new_table)
    """
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {list(FAMILIES)}, got {family!r}.")
    check_columns([name for name in (offset, weights) if name], data)
    coding = FormulaDesign(formula, data, family)
    label = coding.label
    if label.trials is not None and weights is not None:
        raise ValueError(f"the label has its trials in the formula, so that weights={weights!r} cannot be those.")
    batch = _columns(coding, data, offset) | {"label": torch.tensor(label.y)}
    _check_distance(coding.names, batch["image"])
    batch |= {name: torch.tensor(index) for name, index in coding.clusters(data).items()}
    weight = label.trials if weights is None else data[weights].to_numpy(float)
    if weight is not None:
        batch["weight"] = torch.tensor(weight)
    further = [key for key in ("offset", "weight") if key in batch]
    likelihood = OrdinalLikelihoodLoss(len(label.levels or ())) if family == "ordinal" else FAMILIES[family]()
    net = _network(coding, tuple(hidden_channels))
    prepare = PrepareBatchCluster(cluster_key=list(coding.blocks), target_keys=further)
    return FormulaModel(
        net, likelihood.double(), batch, prepare, coding.names, coding.levels, family, label.levels, coding, offset
    )


def _network(coding: FormulaDesign, hidden_channels: tuple[int, ...]) -> ARMED:
    effects = {
        name: {
            "linear_slopes": block.columns,
            "intercept": block.intercept,
            "learn_prior": True,
            "covariance": "full" if block.correlated else "diagonal",
        }
        for name, block in coding.blocks.items()
    }
    return ARMED(
        _FixedPart(coding.num_fixed, hidden_channels=hidden_channels).double(),
        {name: len(clusters) for name, clusters in coding.levels.items()},
        (len(coding.names),),
        adversary=None,
        nonlinear_slopes=False,
        random_effects=effects,
    )


def _check_distance(names: Sequence[str], columns: torch.Tensor) -> None:
    for name, column in zip(names, columns.T):
        mean, spread = float(column.mean()), float(column.std())
        if spread > 0 and abs(mean) > FAR * spread:
            raise ValueError(
                f"column {name!r} has mean {mean:.4g} and s.d. {spread:.4g}, so far from zero that a fit loses its "
                "digits: centre it."
            )


class _FixedPart(DFNN):
    """The network of the fixed effects, which does not see the columns after its own: these have random slopes only."""

    def __init__(self, in_channels: int, hidden_channels: Sequence[int]) -> None:
        with warnings.catch_warnings():  # of an intercept alone
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            super().__init__(in_channels, hidden_channels=hidden_channels)
        self.in_channels = in_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x[:, : self.in_channels].to(self.head.weight.dtype))


def _columns(coding: FormulaDesign, data: pd.DataFrame, offset: str | None) -> dict[str, torch.Tensor]:
    """The network's input, and the offset of the formula and of the column."""
    batch = {"image": torch.tensor(coding.columns(data))}
    parts = [] if (of_formula := coding.offset(data)) is None else [of_formula]
    if offset is not None:
        check_columns([offset], data)
        parts.append(data[offset].to_numpy(float))
    return batch | ({"offset": torch.tensor(sum(parts))} if parts else {})
