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

"""How far a sample is from what a network was trained on: predictions of what lies far away are not to be believed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn as nn
from monai.utils import CommonKeys

from ..utils.parallel import unwrap
from .distance_features import features_looked_at, pooled_features, read_features, recorded
from .erasure.shrinkage import feature_scale, shrunk_covariance

__all__ = ["TrainingDistance", "distance_columns", "fit_training_distance", "warn_of_distance"]

COVERAGE = 0.99  # share of samples like the held-out ones that are not called unlike the training data
SHOWN = 5  # rows that a warning names
LEAST = 2  # held-out samples, of which there is a spread
WIDE = 512  # features from which on correlations would cost more memory than they are worth


@dataclass(frozen=True)
class _Layer:
    """Where the features (D,) of one layer lie, and what the held-out samples' log distances from there are."""

    mean: torch.Tensor  # (D,)
    whitening: torch.Tensor  # (D, D), makes features less their mean uncorrelated; of wide layers 1 / s.d., (D,)
    centre: float = 0.0
    spread: float = 1.0
    channel_dim: int = 1

    def log_distance(self, features: torch.Tensor) -> torch.Tensor:
        """Log of the Mahalanobis distance of features (B, D) in double precision; infinite where they are not."""
        rest, whitening = features - self.mean, self.whitening.double()
        squares = (rest * whitening if whitening.ndim == 1 else rest @ whitening.T).square().sum(dim=1)
        return squares.nan_to_num(nan=math.inf).clamp(min=1e-24).log() / 2


class TrainingDistance:
    """
    How far samples are from the training data of a network, by its own features: in each of several layers and in the
    input, the Mahalanobis distance from the mean of the training samples (Lee et al. 2018,
    https://arxiv.org/abs/1807.03888, without their classes). Its logarithm, less the mean of held-out samples and over
    their s.d., is the distance, of the layer where it is largest: noise may look ordinary to the last layers and not to
    the first, an image upside down the other way round. No more than 1 % of samples like the held-out ones are beyond
    the ``threshold``. Those are of a kind that the network has not seen; the others' predictions may be wrong, too.

    Args:
        layers: by name.
        threshold: distance beyond which a sample is unlike the training data.
    """

    def __init__(self, layers: Mapping[str, _Layer], threshold: float) -> None:
        self.layers, self.threshold = dict(layers), threshold

    @torch.no_grad()
    def __call__(self, network: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """
        Args:
            network: the network that it was fitted to, in any mode.
            x: samples as the network takes them, (B, ...).

        Returns:
            the distance of each, (B,), in double precision on the CPU.
        """
        return self._of(read_features(network, x, self._dims))

    @contextmanager
    def watch(self, network: nn.Module, x: torch.Tensor) -> Iterator[list[torch.Tensor]]:
        """
        The distance without a pass of its own, for a context in which the network predicts the samples, in evaluation
        mode and each layer once, as it does those of unknown clusters.

        Args:
            network, x: see :py:meth:`__call__`.

        Returns:
            a list that has the distance (B,) when the context is left.
        """
        found: list[torch.Tensor] = []
        with recorded(network, self._dims) as record:
            yield found
        found.append(self._of(pooled_features(record, x, self._dims)))

    @property
    def _dims(self) -> dict[str, int]:
        return {name: own.channel_dim for name, own in self.layers.items()}

    def _of(self, features: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return torch.stack(
            [(own.log_distance(features[name]) - own.centre) / own.spread for name, own in self.layers.items()]
        ).amax(dim=0)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """All that it knows, as tensors by name."""
        state: dict[str, torch.Tensor] = {"threshold": torch.tensor(self.threshold, dtype=torch.double)}
        for name, own in self.layers.items():
            state |= {f"{name}/mean": own.mean, f"{name}/whitening": own.whitening}
            state[f"{name}/log_distances"] = torch.tensor([own.centre, own.spread], dtype=torch.double)
            if own.channel_dim != 1:
                state[f"{name}/channel_dim"] = torch.tensor(own.channel_dim)
        return state

    @classmethod
    def from_state_dict(cls, state: Mapping[str, torch.Tensor]) -> TrainingDistance:
        """
        Args:
            state: from :py:meth:`state_dict`.

        Raises:
            KeyError: when it is none.
        """
        names = [name.removesuffix("/mean") for name in state if name.endswith("/mean")]
        layers = {}
        for name in names:
            centre, spread = state[f"{name}/log_distances"].tolist()
            dim = int(state.get(f"{name}/channel_dim", 1))
            layers[name] = _Layer(state[f"{name}/mean"], state[f"{name}/whitening"], centre, spread, dim)
        return cls(layers, float(state["threshold"]))


@torch.no_grad()
def fit_training_distance(
    network: nn.Module,
    train: Iterable[Mapping[str, Any]],
    held_out: Iterable[Mapping[str, Any]],
    layers: Sequence[str] | None = None,
) -> TrainingDistance:
    """
    Fit a :py:class:`TrainingDistance` to a trained network, which stays as it is: two passes over the data.

    Args:
        network: any network, also inside ``DistributedDataParallel``.
        train: batches of the training samples, dicts with ``"image"``, without augmentation; gone through once.
        held_out: the same of samples that it was not trained on, such as those of validation; at least two.
        layers: names of the layers whose features are looked at, those of the wrapped network of an ARMED one; by
            default those that an adversary would see. The input is among them always.

    Raises:
        ValueError: when there are no training samples or less than two held-out ones.

    Example:
        >>> net.training_distance = fit_training_distance(net, train_loader, validation_loader)
        >>> net.training_distance(net, images) > net.training_distance.threshold
        tensor([False, False, True])
    """
    sums: dict[str, _Sums] = {}
    dims: dict[str, int] = {}
    for batch in train:
        x = _image(batch)
        dims = dims or features_looked_at(network, x, layers)
        for name, features in read_features(network, x, dims).items():
            sums.setdefault(name, _Sums(features.shape[1])).update(features)
    where = {name: whitened for name, own in sums.items() if (whitened := own.whitened()) is not None}
    found: dict[str, list[torch.Tensor]] = {name: [] for name in where}
    dims = {name: dims[name] for name in where}
    for batch in held_out:
        for name, features in read_features(network, _image(batch), dims).items():
            found[name].append(where[name].log_distance(features))
    if not where or sum(map(len, next(iter(found.values())))) < LEAST:
        raise ValueError(
            f"the distance to the training data needs training samples whose features vary, and at least {LEAST} "
            "held-out samples to tell what is far."
        )
    logs = {name: torch.cat(parts) for name, parts in found.items()}
    fitted = {
        name: replace(where[name], centre=float(own.mean()), spread=float(own.std()) or 1.0, channel_dim=dims[name])
        for name, own in logs.items()
    }
    far = torch.stack([(logs[name] - own.centre) / own.spread for name, own in fitted.items()]).amax(dim=0)
    rank = min(len(far), math.ceil((len(far) + 1) * COVERAGE))  # as conformal prediction has it
    return TrainingDistance(fitted, float(far.sort().values[rank - 1]))


def distance_columns(network: nn.Module, x: torch.Tensor, distance: torch.Tensor | None = None) -> dict[str, list]:
    """
    What a table of predictions says of each sample: ``distance``, and ``unlike_training``, whether that is beyond the
    threshold. Of a network without a ``training_distance`` it says nothing.

    Args:
        network: the network, as :py:func:`monai_armed.bundle.load_model` gives it.
        x: the samples, (B, ...).
        distance: theirs, (B,), where it is there already.
    """
    inner = unwrap(network)
    known = getattr(inner, "training_distance", None)
    if known is None:
        return {}
    distance = known(inner, x) if distance is None else distance
    return {"distance": distance.tolist(), "unlike_training": (distance > known.threshold).tolist()}


def warn_of_distance(names: Sequence[str], unlike: Sequence[bool], stacklevel: int = 3) -> None:
    """
    Warn of samples that are unlike the training data, if there are any.

    Args:
        names: of all samples.
        unlike: their ``unlike_training``.
        stacklevel: as of :py:func:`warnings.warn`.
    """
    if far := [name for name, beyond in zip(names, unlike) if beyond]:
        more = ", ..." if len(far) > SHOWN else ""
        warnings.warn(
            f"{len(far)} of {len(names)} samples are unlike what the model was trained on (column unlike_training), so "
            f"that their predictions should not be believed: {', '.join(far[:SHOWN])}{more}.",
            stacklevel=stacklevel,
        )


def _image(batch: Mapping[str, Any]) -> torch.Tensor:
    return torch.as_tensor(batch[CommonKeys.IMAGE])


class _Sums:
    """Sums over the training samples of a layer's features (B, D) and their products; of a wide layer's squares."""

    def __init__(self, size: int) -> None:
        self.is_wide, self.count = size > WIDE, 0
        self.total = torch.zeros(size).double()
        self.second = torch.zeros(size if self.is_wide else (size, size)).double()

    def update(self, features: torch.Tensor) -> None:
        self.count += len(features)
        self.total += features.sum(0)
        self.second += features.square().sum(0) if self.is_wide else features.T @ features

    def whitened(self) -> _Layer | None:
        """Mean and whitening of the samples; None where they are all alike."""
        mean = self.total / self.count
        moments = self.second / self.count - (mean.square() if self.is_wide else torch.outer(mean, mean))
        variance = moments if self.is_wide else moments.diagonal()
        if not float(variance.max()) > 1e-12 * float(mean.square().max()):
            return None
        scale = feature_scale(variance)
        whitening = 1 / scale
        if not self.is_wide:
            root = torch.linalg.cholesky(shrunk_covariance(moments, self.count) / torch.outer(scale, scale))
            whitening = torch.linalg.solve_triangular(root, torch.eye(len(scale)).double(), upper=False) / scale
        return _Layer(mean, whitening.float())
