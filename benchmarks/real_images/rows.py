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

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scores import Prediction
from sklearn.linear_model import LogisticRegressionCV
from training import LAYER, eval_batches

from monai_armed.networks import fit_random_effects
from monai_armed.networks.erasure import ClusterEraser, fit_erasers
from monai_armed.networks.nets import ARMED, CNN

__all__ = ["ROWS"]

Parts = dict[str, pd.DataFrame]
Row = Callable[[CNN, Parts, dict[str, torch.Tensor], str], Prediction]


class _Latents(NamedTuple):
    """What the last layer reads (N, 64), its logits (N,), label and cluster of one part."""

    latent: np.ndarray
    logit: np.ndarray
    label: np.ndarray
    cluster: np.ndarray


def _wrap(network: CNN, parts: Parts, images: dict[str, torch.Tensor], erased: bool, **options: Any) -> ARMED:
    """The trained network with random effects of the source around it, and an eraser of its latent."""
    shape, sources = tuple(next(iter(images.values())).shape), parts["train"]["cluster"].nunique()
    erasers = {LAYER: ClusterEraser(network.head.in_features)} if erased else None
    options = {"random_effects": {"learn_prior": True, "sampling": "sample"}, **options}
    return ARMED(network, sources, shape, adversary=None, erasers=erasers, **options).eval()


@torch.no_grad()
def _predict(net: ARMED, part: pd.DataFrame, images: dict[str, torch.Tensor], device: str, effects: str) -> np.ndarray:
    logits = [
        net(batch["image"].to(device), batch["cluster"].to(device), effects=effects)
        for batch in eval_batches(part, images)
    ]
    return torch.cat(logits).squeeze(1).double().cpu().numpy()


@torch.no_grad()
def _latents(network: CNN, part: pd.DataFrame, images: dict[str, torch.Tensor], device: str) -> _Latents:
    kept = []
    handle = network.head.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    logit = torch.cat([network(batch["image"].to(device)) for batch in eval_batches(part, images)])
    handle.remove()
    latent = torch.cat(kept).double().cpu().numpy()
    return _Latents(
        latent, logit.squeeze(1).double().cpu().numpy(), part["label"].to_numpy(), part["cluster"].to_numpy()
    )


def conventional(network: CNN, parts: Parts, images: dict[str, torch.Tensor], device: str) -> Prediction:
    """The network as it was trained."""
    return Prediction(*(_latents(network, parts[part], images, device).logit for part in ("test", "unseen")), None)


def _armed(**options: bool) -> Row:
    def row(network: CNN, parts: Parts, images: dict[str, torch.Tensor], device: str) -> Prediction:
        """Erased after training, random effects of what the latent was before; the trunk stays as it is."""
        net, batches = _wrap(network, parts, images, erased=True).to(device), eval_batches(parts["train"], images)
        fit_erasers(net, batches, num_classes=2, **options)
        fit_random_effects(net, batches, torch.nn.BCEWithLogitsLoss())
        fixed = [_predict(net, parts[part], images, device, "fixed") for part in ("test", "unseen")]
        return Prediction(*fixed, _predict(net, parts["test"], images, device, "mixed"))

    return row


def intercepts(network: CNN, parts: Parts, images: dict[str, torch.Tensor], device: str) -> Prediction:
    """A random intercept of each source on top of the trained network, as lme4 would have it."""
    net = _wrap(network, parts, images, erased=False, nonlinear_slopes=False).to(device)
    fit_random_effects(net, eval_batches(parts["train"], images), torch.nn.BCEWithLogitsLoss())
    fixed = [_predict(net, parts[part], images, device, "fixed") for part in ("test", "unseen")]
    return Prediction(*fixed, _predict(net, parts["test"], images, device, "mixed"))


def _last_layer(prepare: Callable[[np.ndarray, np.ndarray], np.ndarray], balanced: bool) -> Row:
    def row(network: CNN, parts: Parts, images: dict[str, torch.Tensor], device: str) -> Prediction:
        of = {name: _latents(network, part, images, device) for name, part in parts.items()}
        rows = [of["train"], of["val"]]
        x = np.concatenate([prepare(part.latent, part.cluster) for part in rows])
        y, cluster = (np.concatenate([getattr(part, name) for part in rows]) for name in ("label", "cluster"))
        mean, scale = x.mean(0), x.std(0) + 1e-9
        counts = pd.Series(cluster * 2 + y)
        weight = 1 / counts.map(counts.value_counts()) if balanced else np.ones(len(y))
        model = LogisticRegressionCV(Cs=[1e-3, 1e-2, 1e-1, 1], cv=5, scoring="neg_log_loss", max_iter=300)
        model.fit((x - mean) / scale, y, sample_weight=weight / weight.mean())
        logits = [
            model.decision_function((prepare(of[part].latent, of[part].cluster) - mean) / scale)
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
