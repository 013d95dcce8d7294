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

"""The rows of the table: what is made of each trained network, without training it again."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scores import Prediction
from sklearn.linear_model import LogisticRegressionCV
from training import eval_batches

from monai_armed.networks import fit_random_effects
from monai_armed.networks.erasure import ClusterEraser, fit_erasers
from monai_armed.networks.nets import ARMED, CNN

__all__ = ["ROWS", "Latents", "read_latents"]


class Latents(NamedTuple):
    """What the last layer reads (N, 64), its logits (N,), label and cluster of one part."""

    latent: np.ndarray
    logit: np.ndarray
    label: np.ndarray
    cluster: np.ndarray

    def batch(self) -> dict[str, torch.Tensor]:
        """All samples, as a loader would give them: the latent is the image of what comes after it."""
        label = torch.tensor(self.label, dtype=torch.float32).unsqueeze(1)
        return {"image": torch.tensor(self.latent), "label": label, "cluster": torch.tensor(self.cluster)}


Parts = dict[str, Latents]
Row = Callable[[torch.nn.Linear, Parts], Prediction]


@torch.no_grad()
def read_latents(
    network: CNN, parts: dict[str, pd.DataFrame], images: dict[str, torch.Tensor], device: str
) -> dict[str, Latents]:
    """The trained network is run once over each part: no row changes what is before its last layer."""
    found, kept = {}, []
    handle = network.head.register_forward_pre_hook(lambda module, args: kept.append(args[0].cpu()))
    for name, part in parts.items():
        kept.clear()
        logit = torch.cat([network(batch["image"].to(device)).cpu() for batch in eval_batches(part, images)])
        labels = part["label"].to_numpy(), part["cluster"].to_numpy()
        found[name] = Latents(torch.cat(kept).numpy(), logit.squeeze(1).double().numpy(), *labels)
    handle.remove()
    return found


def _wrap(head: torch.nn.Linear, parts: Parts, erased: bool, **options: Any) -> ARMED:
    """ARMED around what comes after the latent, as it would be around the whole network, erased there or not."""
    after = torch.nn.Sequential(torch.nn.Identity(), head)
    sources = len(np.unique(parts["train"].cluster))
    erasers = {"0": ClusterEraser(head.in_features)} if erased else None
    options = {"random_effects": {"learn_prior": True, "sampling": "sample"}, **options}
    return ARMED(after, sources, (head.in_features,), adversary=None, erasers=erasers, **options).eval()


@torch.no_grad()
def _predict(net: ARMED, part: Latents, effects: str) -> np.ndarray:
    batch = part.batch()
    return net(batch["image"], batch["cluster"], effects=effects).squeeze(1).double().numpy()


def _fitted(net: ARMED, parts: Parts) -> Prediction:
    """With random effects of the training images."""
    fit_random_effects(net, [parts["train"].batch()], torch.nn.BCEWithLogitsLoss())
    fixed = [_predict(net, parts[part], "fixed") for part in ("test", "unseen")]
    return Prediction(*fixed, _predict(net, parts["test"], "mixed"))


def conventional(head: torch.nn.Linear, parts: Parts) -> Prediction:
    """The network as it was trained."""
    return Prediction(parts["test"].logit, parts["unseen"].logit, None)


def _armed(head_anew: bool = False, **options: bool) -> Row:
    def row(head: torch.nn.Linear, parts: Parts) -> Prediction:
        """Erased after training, random effects of what the latent was before; the trunk stays as it is."""
        net = _wrap(copy.deepcopy(head), parts, erased=True)
        fit_erasers(net, [parts["train"].batch()], num_classes=2, **options)
        if head_anew:
            _fit_head(net, parts["train"])
        return _fitted(net, parts)

    return row


def intercepts(head: torch.nn.Linear, parts: Parts) -> Prediction:
    """A random intercept of each source on top of the trained network, as lme4 would have it."""
    return _fitted(_wrap(head, parts, erased=False, nonlinear_slopes=False), parts)


def _logistic(x: np.ndarray, y: np.ndarray, cluster: np.ndarray, balanced: bool):
    """The best of four penalties by cross-validation; ``balanced``: each class of each source counts as much."""
    counts = pd.Series(cluster * 2 + y)
    weight = 1 / counts.map(counts.value_counts()) if balanced else np.ones(len(y))
    model = LogisticRegressionCV(Cs=[1e-3, 1e-2, 1e-1, 1], cv=5, scoring="neg_log_loss", max_iter=300)
    return model.fit(x, y, sample_weight=weight / weight.mean())


@torch.no_grad()
def _fit_head(net: ARMED, part: Latents) -> None:
    """The last layer anew, on what the erasure leaves, with sources and classes balanced."""
    x = net.erasers[0](part.batch()["image"]).double().numpy()
    mean, scale = x.mean(0), x.std(0) + 1e-9
    model = _logistic((x - mean) / scale, part.label, part.cluster, balanced=True)
    weight = torch.tensor(model.coef_ / scale)
    head = net.network[1]
    head.weight.copy_(weight)
    head.bias.copy_(torch.tensor(model.intercept_) - weight @ torch.tensor(mean))


def _last_layer(prepare: Callable[[np.ndarray, np.ndarray], np.ndarray], balanced: bool) -> Row:
    def row(head: torch.nn.Linear, parts: Parts) -> Prediction:
        rows = [parts["train"], parts["val"]]
        x = np.concatenate([prepare(part.latent, part.cluster) for part in rows])
        y, cluster = (np.concatenate([getattr(part, name) for part in rows]) for name in ("label", "cluster"))
        mean, scale = x.mean(0), x.std(0) + 1e-9
        model = _logistic((x - mean) / scale, y, cluster, balanced)
        logits = [
            model.decision_function((prepare(parts[part].latent, parts[part].cluster) - mean) / scale)
            for part in ("test", "unseen")
        ]
        return Prediction(*logits, None)

    return row


def _centred(latent: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """Less the mean of each source, in the part at hand, so that an unseen source has its own, too."""
    return latent - pd.DataFrame(latent).groupby(cluster).transform("mean").to_numpy()


ROWS: dict[str, dict[str, Row]] = {
    "conventional": {
        "conventional": conventional,
        "conventional, intercept a source": intercepts,
        "sources' means subtracted, last layer anew": _last_layer(_centred, balanced=False),
        "last layer anew, source and class balanced": _last_layer(lambda latent, cluster: latent, balanced=True),
        "ARMED: erased within class": _armed(),
        "ARMED: the same, last layer anew, balanced": _armed(head_anew=True),
        "ARMED: the same, the label's covariance kept": _armed(keep_label=True),
        "ARMED: erased marginally": _armed(within_label=False),
    },
    "colour augmentation": {
        "colour augmentation": conventional,
        "colour augmentation, ARMED: erased within class": _armed(),
    },
    "balanced sampling": {"balanced sampling": conventional},
    "GroupDRO": {"GroupDRO": conventional},
    "CORAL": {"CORAL": conventional},
    "V-REx": {"V-REx": conventional},
}
