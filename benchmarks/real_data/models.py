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
"""The compared models that are no networks, and the training part that all models are fitted to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import gpboost
import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.preprocessing import OneHotEncoder

__all__ = ["Boosting", "MixedModel", "Model", "Regression", "TrainingPart"]

PENALTIES = np.logspace(-3, 1, 9)  # C of scikit-learn
MOST_SLOPES = 10  # random slopes of more features take GPBoost minutes a fold
WIDE, COMPONENTS = 50, (10, 30, 100)
BOOSTING = {"learning_rate": 0.1, "max_depth": 3, "min_data_in_leaf": 10, "verbose": -1, "num_threads": 1}
BOOSTING_ROUNDS, PATIENCE = 200, 10


@dataclass
class TrainingPart:
    """The training part of a fold, coded and scaled.

    Args:
        x: features (n, p).
        y: target (n,).
        z: cluster index (n,), below ``num_clusters``.
        num_clusters: number of clusters of the whole table; those of unseen clusters get no row here.
        binary: whether the target is a class.
        inner: inner folds, by which a model chooses what it has to choose: of new rows of the same clusters, or of new
            clusters, as the outer fold is.
        seed: of whatever a model draws.
        memory: what one model chose and another goes on from, and the CPU seconds that it took.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    num_clusters: int
    binary: bool
    inner: list[tuple[np.ndarray, np.ndarray]]
    seed: int = 0
    memory: dict[str, Any] = field(default_factory=dict)

    def losses(self, prediction: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Squared error, or log-loss of a logit, of each of some of the rows."""
        if self.binary:
            return np.logaddexp(0, np.where(self.y[rows] == 1, -prediction, prediction))
        return np.square(prediction - self.y[rows])

    def loss(self, prediction: np.ndarray, rows: np.ndarray) -> float:
        """Mean of :py:meth:`losses`."""
        return float(self.losses(prediction, rows).mean())


class Model(Protocol):
    """A compared model."""

    def fit(self, part: TrainingPart) -> Model:
        """Fit to the training part, and choose by its inner folds."""

    def predict(self, x: np.ndarray, z: np.ndarray) -> dict[str, np.ndarray]:
        """Scores (logits or values) by kind of prediction, ``""`` the model's own; cluster -1: not known."""


class Regression:
    """Logistic or linear regression with an L2 penalty chosen by the inner folds.

    Args:
        one_hot: whether the cluster is a further, one-hot feature; zeros for a cluster that is not known.
    """

    def __init__(self, one_hot: bool) -> None:
        self.one_hot = one_hot

    def _features(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        return np.hstack([x, self.encoder.transform(z[:, None])]) if self.one_hot else x

    def fit(self, part: TrainingPart) -> Regression:
        self.encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(part.z[:, None])
        if part.binary:
            options = {"scoring": "neg_log_loss", "l1_ratios": (0.0,), "max_iter": 1000, "use_legacy_attributes": False}
            model = LogisticRegressionCV(Cs=PENALTIES, cv=part.inner, **options)
        else:
            model = RidgeCV(alphas=1 / PENALTIES, cv=part.inner)
        self.model = model.fit(self._features(part.x, part.z), part.y)
        return self

    def predict(self, x: np.ndarray, z: np.ndarray) -> dict[str, np.ndarray]:
        features = self._features(x, z)
        binary = isinstance(self.model, LogisticRegressionCV)
        return {"": self.model.decision_function(features) if binary else self.model.predict(features)}


class MixedModel:
    """
    Linear or logistic mixed model by maximum likelihood (GPBoost's linear models) with random intercepts. The inner
    folds choose whether all features get uncorrelated random slopes too, and in a wide table, where maximum likelihood
    would overfit, how many principal components take the place of the features.
    """

    def fit(self, part: TrainingPart) -> MixedModel:
        narrow = part.x.shape[1] <= WIDE
        candidates: list[tuple[int | None, bool]] = (
            [(None, False)] if narrow else [(number, False) for number in COMPONENTS]
        )
        if part.x.shape[1] <= MOST_SLOPES:
            candidates.append((None, True))
        losses = [self._inner_loss(part, *c) for c in candidates] if len(candidates) > 1 else [0.0]
        self.options = candidates[int(np.argmin(losses))]
        self._fit_rows(part, np.arange(len(part.y)), *self.options)
        return self

    def _inner_loss(self, part: TrainingPart, components: int | None, slopes: bool) -> float:
        losses = []
        for train, test in part.inner:
            self._fit_rows(part, train, components, slopes)
            losses.append(part.loss(self.predict(part.x[test], part.z[test])[""], test))
        return float(np.mean(losses))

    def _fit_rows(self, part: TrainingPart, rows: np.ndarray, components: int | None, slopes: bool) -> None:
        self.reduce = None if components is None else PCA(components).fit(part.x[rows])
        self.slopes = slopes
        x = self._features(part.x[rows])
        options = {"group_rand_coef_data": x, "ind_effect_group_rand_coef": [1] * x.shape[1]} if slopes else {}
        likelihood = "bernoulli_logit" if part.binary else "gaussian"
        self.model = gpboost.GPModel(group_data=part.z[rows], likelihood=likelihood, **options)
        self.model.fit(y=part.y[rows].astype(float), X=_with_constant(x))

    def _features(self, x: np.ndarray) -> np.ndarray:
        return x if self.reduce is None else self.reduce.transform(x)

    def predict(self, x: np.ndarray, z: np.ndarray) -> dict[str, np.ndarray]:
        x = self._features(x)
        options = {"group_rand_coef_data_pred": x} if self.slopes else {}
        prediction = self.model.predict(X_pred=_with_constant(x), group_data_pred=z, predict_response=False, **options)
        return {"": prediction["mu"]}


class Boosting:
    """GPBoost: boosted trees and random intercepts; the number of trees is chosen by the inner folds."""

    def fit(self, part: TrainingPart) -> Boosting:
        likelihood = "bernoulli_logit" if part.binary else "gaussian"
        self.center, self.spread = (0.0, 1.0) if part.binary else (part.y.mean(), part.y.std())
        y = (part.y - self.center) / self.spread  # else the first trees learn the mean, and random effects take it up

        def random_effects() -> gpboost.GPModel:
            return gpboost.GPModel(group_data=part.z, likelihood=likelihood)

        scores = gpboost.cv(
            BOOSTING,
            gpboost.Dataset(part.x, y, free_raw_data=False),
            gp_model=random_effects(),
            num_boost_round=BOOSTING_ROUNDS,
            early_stopping_rounds=PATIENCE,
            folds=part.inner,
            metric="test_neg_log_likelihood",
            verbose_eval=False,
        )
        rounds = len(next(iter(scores.values())))
        data = gpboost.Dataset(part.x, y)
        self.model = gpboost.train(BOOSTING, data, gp_model=random_effects(), num_boost_round=rounds)
        return self

    def predict(self, x: np.ndarray, z: np.ndarray) -> dict[str, np.ndarray]:
        parts = self.model.predict(data=x, group_data_pred=z, predict_var=False, pred_latent=True)
        return {"": (parts["fixed_effect"] + parts["random_effect_mean"]) * self.spread + self.center}


def _with_constant(x: np.ndarray) -> np.ndarray:
    return np.hstack([np.ones((len(x), 1)), x])
