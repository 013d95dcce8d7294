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

"""The rows of the table: linear models of features that were harmonised, erased or left as they are."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.preprocessing import StandardScaler

from monai_armed.losses import GaussianLikelihoodLoss
from monai_armed.networks import fit_random_effects
from monai_armed.networks.erasure import ClusterEraser, FeatureSums, fit_eraser
from monai_armed.networks.nets import ARMED

__all__ = [
    "COMPONENTS",
    "METHODS",
    "Fitted",
    "Method",
    "are_many",
    "armed",
    "conventional",
    "intercepts",
    "on_components",
]

COMPONENTS = 100  # of features that are more than half as many as the people


class Fitted(NamedTuple):
    """
    A model that was fitted to the training sites: what the last layer reads, its prediction for people of any site,
    that for people of training sites whose site is used, too (None: the model has no use for it), and what a model that
    chooses has chosen.
    """

    features: Callable[[np.ndarray, np.ndarray], np.ndarray]
    fixed: Callable[[np.ndarray, np.ndarray], np.ndarray]
    mixed: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    recipe: str = ""


Method = Callable[[np.ndarray, np.ndarray, np.ndarray, bool], Fitted]


def are_many(x: np.ndarray) -> bool:
    """Whether principal components are taken of the features."""
    return x.shape[1] >= len(x) / 2


def prepare(x: np.ndarray, components: int = COMPONENTS) -> Callable[[np.ndarray], np.ndarray]:
    """Features standardised; where they are many, their first principal components in place of them."""
    if not are_many(x):
        return StandardScaler().fit(x).transform
    pca = _principal_components(x.shape, x.tobytes())
    return lambda a: pca.transform(a)[:, :components]


@lru_cache(maxsize=20)  # as many as there are parts of a study
def _principal_components(shape: tuple[int, int], numbers: bytes) -> PCA:
    """Half as many as there are people, once for all methods that are fitted to the same people."""
    x = np.frombuffer(numbers).reshape(shape)
    return PCA(len(x) // 2, svd_solver="full").fit(x)


def linear(x: np.ndarray, y: np.ndarray, is_class: bool) -> tuple[np.ndarray, float]:
    """Weights and bias of a linear model with an L2 penalty chosen by cross-validation."""
    scale = x.std(axis=0).max() or 1.0
    if is_class:
        model = LogisticRegressionCV(Cs=np.logspace(-5, 1, 7), cv=5, scoring="neg_log_loss", max_iter=500)
    else:
        model = RidgeCV(np.logspace(-1, 4, 11))
    model.fit(x / scale, y)
    bias = np.ravel(model.intercept_)[0]
    return np.ravel(model.coef_) / scale, float(bias)


def conventional(x: np.ndarray, y: np.ndarray, site: np.ndarray, is_class: bool) -> Fitted:
    """Ridge or logistic regression that knows nothing of sites."""
    weight, bias = linear(x, y, is_class)
    return Fitted(lambda a, s: a, lambda a, s: a @ weight + bias)


def site_input(x: np.ndarray, y: np.ndarray, site: np.ndarray, is_class: bool) -> Fitted:
    """The site as further columns, one each; none of them for a new site."""
    size = site.max() + 1
    scale = 3 * x.std(axis=0).mean()  # so that the penalty hardly shrinks them

    def joined(a: np.ndarray, s: np.ndarray) -> np.ndarray:
        return np.concatenate([a, scale * (s[:, None] == np.arange(size))], axis=1)

    weight, bias = linear(joined(x, site), y, is_class)
    return Fitted(
        lambda a, s: joined(a, np.full(len(a), -1)),
        lambda a, s: joined(a, np.full(len(a), -1)) @ weight + bias,
        lambda a, s: joined(a, s) @ weight + bias,
    )


def site_alone(x: np.ndarray, y: np.ndarray, site: np.ndarray, is_class: bool) -> Fitted:
    """The mean of the label at the site; of a new site that of all."""
    means = np.array([y[site == s].mean() if (site == s).any() else y.mean() for s in range(site.max() + 1)])
    return Fitted(lambda a, s: np.zeros((len(a), 1)), lambda a, s: np.full(len(a), y.mean()), lambda a, s: means[s])


def centred(x: np.ndarray, y: np.ndarray, site: np.ndarray, is_class: bool) -> Fitted:
    """Less the mean of each site, in the part at hand: a new site must come with many people at once."""

    def less_mean(a: np.ndarray, s: np.ndarray) -> np.ndarray:
        means = {c: a[s == c].mean(axis=0) for c in np.unique(s)}
        return a - np.stack([means[c] for c in s])

    weight, bias = linear(less_mean(x, site), y, is_class)
    return Fitted(less_mean, lambda a, s: less_mean(a, s) @ weight + bias)


def _combat(keep_label: bool) -> Method:
    def fit(x: np.ndarray, y: np.ndarray, site: np.ndarray, is_class: bool) -> Fitted:
        """ComBat of neuroHarmonize, learned on training people; those of a new site stay as they are."""
        import pandas as pd
        from neuroHarmonize import harmonizationApply, harmonizationLearn

        def covariates(label: np.ndarray, s: np.ndarray) -> pd.DataFrame:
            return pd.DataFrame({"SITE": s.astype(str), **({"label": label} if keep_label else {})})

        model, learned = harmonizationLearn(x, covariates(y, site))

        def applied(a: np.ndarray, s: np.ndarray) -> np.ndarray:
            known, out = np.isin(s, site), a.copy()
            if known.any():  # nobody's own label is used to predict it: all are given the training's mean
                # the training's people come along, since neuroHarmonize wants people of every site
                given = covariates(np.r_[y, np.full(known.sum(), y.mean())], np.r_[site, s[known]])
                out[known] = harmonizationApply(np.r_[x, a[known]], given, model)[len(x) :]
            return out

        weight, bias = linear(learned, y, is_class)
        return Fitted(applied, lambda a, s: applied(a, s) @ weight + bias)

    return fit


def armed(mixed: bool = True, **options: bool) -> Method:
    """Erased as ``options`` of :py:func:`fit_eraser` say; ``mixed``: with random effects of what was before."""

    def fit(x: np.ndarray, y: np.ndarray, site: np.ndarray, is_class: bool) -> Fitted:
        sums = FeatureSums(x.shape[1], site.max() + 1, 2 * is_class, int(not is_class))
        label = y.astype(int) if is_class else ((y - y.mean()) / y.std())[:, None]
        sums.update(torch.tensor(x), torch.tensor(site), torch.tensor(label))
        return _wrapped(x, y, site, is_class, lambda a, s: a, fit_eraser(sums, **options).double(), mixed)

    return fit


def intercepts(mixed: bool = True) -> Method:
    """
    Each feature less its intercept of the site, which is fitted beside the label's slope: the location of ComBat. A new
    site has that of the population, 0. Of people of seen sites the site must be known, which an erasure does not need.
    """

    def fit(x: np.ndarray, y: np.ndarray, site: np.ndarray, is_class: bool) -> Fitted:
        of_site = np.eye(site.max() + 1)[site]
        effects = np.linalg.lstsq(np.c_[of_site, y - y.mean()], x, rcond=None)[0][:-1]
        effects -= np.average(effects, axis=0, weights=of_site.sum(0))
        effects = np.r_[effects, np.zeros((1, x.shape[1]))]

        def less_intercept(a: np.ndarray, s: np.ndarray) -> np.ndarray:
            return a - effects[np.minimum(s, len(effects) - 1)]

        return _wrapped(x, y, site, is_class, less_intercept, ClusterEraser(x.shape[1]).double(), mixed)

    return fit


def _wrapped(
    x: np.ndarray,
    y: np.ndarray,
    site: np.ndarray,
    is_class: bool,
    change: Callable[[np.ndarray, np.ndarray], np.ndarray],
    eraser: ClusterEraser,
    mixed: bool,
) -> Fitted:
    """A last layer of what the change and the eraser leave, and random effects of what the eraser was given."""
    count, size = site.max() + 1, x.shape[1]
    middle, spread = (0.0, 1.0) if is_class else (y.mean(), y.std())
    scaled, given = (y - middle) / spread, torch.tensor(change(x, site))
    weight, bias = linear(eraser(given).numpy(), y if is_class else scaled, is_class)
    head = torch.nn.Linear(size, 1).double()
    head.load_state_dict({"weight": torch.tensor(weight[None]), "bias": torch.tensor([bias])})
    net = ARMED(
        torch.nn.Sequential(torch.nn.Identity(), head), count, (size,), adversary=None,
        erasers={"0": ClusterEraser(size)}, random_effects={"learn_prior": True, "sampling": "sample"},
    ).double().eval()  # fmt: skip
    net.erasers[0].load_state_dict(eraser.state_dict())
    if mixed:
        batch = {
            "image": given,
            "label": torch.tensor(scaled[:, None], dtype=torch.double),
            "cluster": torch.tensor(site),
        }
        residual = float((net(given).detach() - batch["label"]).std())
        loss = torch.nn.BCEWithLogitsLoss() if is_class else GaussianLikelihoodLoss(residual)
        fit_random_effects(net, [batch], loss.requires_grad_(False))

    @torch.no_grad()
    def predict(a: np.ndarray, s: np.ndarray, effects: str) -> np.ndarray:
        cluster = torch.tensor(np.where(s < count, s, -1))
        return middle + spread * net(torch.tensor(change(a, s)), cluster, effects=effects).squeeze(1).numpy()

    return Fitted(
        lambda a, s: net.erasers[0](torch.tensor(change(a, s))).numpy(),
        lambda a, s: predict(a, s, "fixed"),
        (lambda a, s: predict(a, s, "mixed")) if mixed else None,
    )


def on_components(method: Method, components: int = COMPONENTS) -> Method:
    """A method of features as they come, which are prepared by what the training people are."""

    def fit(x: np.ndarray, y: np.ndarray, site: np.ndarray, is_class: bool) -> Fitted:
        transform = prepare(x, components)
        fitted = method(transform(x), y, site, is_class)
        mixed = fitted.mixed
        return Fitted(
            lambda a, s: fitted.features(transform(a), s),
            lambda a, s: fitted.fixed(transform(a), s),
            None if mixed is None else lambda a, s: mixed(transform(a), s),
        )

    return fit


METHODS: dict[str, Method] = {
    name: on_components(method)
    for name, method in {
        "conventional": conventional,
        "site alone": site_alone,
        "site as input": site_input,
        "sites' means subtracted": centred,
        "ComBat": _combat(keep_label=False),
        "ComBat, label kept": _combat(keep_label=True),
        "ARMED: erased within label": armed(),
        "ARMED: the same, the label's covariance not kept": armed(keep_label=False),
        "ARMED: erased marginally": armed(within_label=False, keep_label=False),
        "ARMED: features less an intercept a site": intercepts(),
    }.items()
}
