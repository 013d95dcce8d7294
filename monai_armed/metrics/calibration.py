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

"""Prediction sets and intervals that cover for new clusters, from clusters that were held out of the training."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.metrics import CalibrationErrorMetric
from monai.networks.utils import eval_mode
from scipy.optimize import minimize_scalar

from ..losses.likelihoods import LikelihoodLoss
from .calibration_checks import check_classes, like_log_counts, one_column

__all__ = ["Calibration", "calibrate", "calibration_error", "hierarchical_quantile"]

Predict = Callable[[torch.Tensor], torch.Tensor]
COUNTS = ("poisson", "negative_binomial")
WIDEST = 20.0  # temperatures between 1/20 and 20


def hierarchical_quantile(scores: np.ndarray, clusters: Sequence[Hashable], level: float) -> float:
    """
    The score that one of a new cluster does not exceed with probability ``level`` at least: quantile of the scores of
    the held-out clusters, each of which counts once whatever its size, and of one more cluster of infinite score
    (hierarchical conformal prediction, Section 3 of https://arxiv.org/abs/2306.06342; also
    https://arxiv.org/abs/1809.07441). It holds whatever the model is if the new cluster is like one more draw of those,
    on average over clusters.

    Args:
        scores: how badly each sample is predicted, (N,).
        clusters: cluster of each sample.
        level: probability, between 0 and 1.

    Returns:
        the score, infinite where there are less than level / (1 - level) clusters.

    Raises:
        ValueError: when the level is out of range, or there are no scores or some that are not finite.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}.")
    values = np.asarray(scores, float)
    if len(values) == 0 or not np.isfinite(values).all():
        raise ValueError("scores must be finite, and of one sample at least.")
    _, index, count = np.unique(np.asarray(clusters), return_inverse=True, return_counts=True)
    weight = 1 / count[index] / (len(count) + 1)
    order = np.argsort(values)
    enough = np.flatnonzero(np.cumsum(weight[order]) >= level - 1e-12)
    return float(values[order][enough[0]]) if len(enough) else math.inf


class Calibration:
    """
    What held-out clusters say of a network's predictions for new ones.

    A class is in a sample's set where its probability, at the temperature, is at least 1 minus the quantile; an
    interval is the prediction, and the quantile to either side; of counts the prediction is the exponential of the
    network's, and no end is below 0.

    Args:
        prediction: logits (N, K), K = 1 for two classes, of held-out clusters' samples, or predicted numbers (N, 1).
        label: class (N,), or number.
        clusters: cluster of each sample.
        level: wanted coverage of a new cluster's samples.
        classification: whether labels are classes; by default if they are whole numbers beside several logits or, with
            one logit, 0 and 1.
        log_link: whether predictions are logarithms of mean counts.

    Attributes:
        temperature: what logits are divided by: that of the least mean log-loss, each cluster counted once.
        quantile: see :py:func:`hierarchical_quantile`.
        num_clusters: number of held-out clusters.

    Raises:
        ValueError: when the numbers do not fit, labels have several columns or are no classes of the logits, or there
            are too few clusters for the level.

    Example:
        >>> calibration = Calibration(logits, label, site)
        >>> calibration.sets(new_logits)  # (N, classes), bool
    """

    def __init__(
        self,
        prediction: torch.Tensor,
        label: torch.Tensor,
        clusters: Sequence[Hashable],
        level: float = 0.9,
        classification: bool | None = None,
        log_link: bool = False,
    ) -> None:
        label = one_column(label)
        if prediction.ndim != 2:
            raise ValueError(
                f"predictions must be (N, K), one of each sample, got {tuple(prediction.shape)}: an image's pixels are "
                "no samples, so calibrate a number of each image, such as a volume."
            )
        if not len(prediction) == len(label) == len(clusters):
            raise ValueError(
                f"got {len(prediction)} predictions, {len(label)} labels and {len(clusters)} clusters: one of each."
            )
        self.num_clusters, self.level, self.log_link = len(set(clusters)), level, log_link
        if self.num_clusters < level / (1 - level) - 1e-9:
            needed = math.ceil(level / (1 - level) - 1e-9)
            raise ValueError(
                f"{self.num_clusters} held-out clusters are too few for a level of {level}: it takes {needed}, or a "
                f"level of {self.num_clusters / (self.num_clusters + 1):.2f} at most."
            )
        if classification is None and log_link:
            classification = False
        if classification is None:
            binary = prediction.shape[1] == 1 and bool(((label == 0) | (label == 1)).all())
            classification = binary or (prediction.shape[1] > 1 and bool((label == label.round()).all()))
        self.classification = classification
        check_classes(prediction, label, classification)
        _, index, count = np.unique(np.asarray(clusters), return_inverse=True, return_counts=True)
        self.temperature = _temperature(prediction, label, 1 / count[index]) if classification else 1.0
        self.quantile = hierarchical_quantile(self._scores(prediction, label), clusters, level)

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Probability of each class, (N, K), two of one logit, at the temperature."""
        return _log_probabilities(logits / self.temperature).exp()

    def _scores(self, prediction: torch.Tensor, label: torch.Tensor) -> np.ndarray:
        if not self.classification:
            return (self._numbers(prediction)[:, 0] - label).abs().double().detach().cpu().numpy()
        chosen = self.probabilities(prediction).gather(1, label.long().unsqueeze(1))
        return 1 - chosen.squeeze(1).double().detach().cpu().numpy()

    def sets(self, logits: torch.Tensor) -> torch.Tensor:
        """
        Args:
            logits: (N, K).

        Returns:
            which classes are in each sample's set, bool (N, K), or (N, 2) of one logit. All are where nothing can be
            told apart, none where the sample is like none of its class.
        """
        return 1 - self.probabilities(logits).double() <= self.quantile + 1e-12

    def _numbers(self, prediction: torch.Tensor) -> torch.Tensor:
        return prediction.exp() if self.log_link else prediction

    def intervals(self, prediction: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Lower and upper ends, each of the shape of what the network predicts."""
        middle = self._numbers(prediction)
        low = middle - self.quantile
        return low.clamp(min=0) if self.log_link else low, middle + self.quantile

    def covered(self, prediction: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Whether each sample's label is in its set or interval, bool (N,)."""
        label = one_column(label)
        return torch.as_tensor(self._scores(prediction, label) <= self.quantile + 1e-12)

    def calibration_error(self, logits: torch.Tensor, label: torch.Tensor, num_bins: int = 15) -> float:
        """:py:func:`calibration_error` of the probabilities at the temperature."""
        return calibration_error(self.probabilities(logits), label, num_bins)

    def to_dict(self) -> dict[str, Any]:
        """What it has learned, as JSON can hold it."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """
        The calibration that :py:meth:`to_dict` has written.

        Raises:
            ValueError: when the values are not one.
        """
        numbers = ("level", "temperature", "quantile", "num_clusters")
        wrong = [name for name in numbers if not isinstance(values.get(name), (int, float))]
        if wrong or not isinstance(values.get("classification"), bool):
            raise ValueError(f"a calibration has no proper {(wrong or ['classification'])[0]}: {dict(values)}.")
        calibration = cls.__new__(cls)
        vars(calibration).update({name: values[name] for name in (*numbers, "classification")})
        calibration.log_link = values.get("log_link") is True  # older ones have none
        return calibration


def calibration_error(probability: torch.Tensor, label: torch.Tensor, num_bins: int = 15) -> float:
    """
    Expected calibration error (``monai.metrics.CalibrationErrorMetric``), averaged over classes.

    Args:
        probability: of each class, (N, K).
        label: classes, (N,) or (N, 1).
        num_bins: number of bins between 0 and 1.

    Returns:
        a number between 0 and 1.
    """
    one_hot = torch.nn.functional.one_hot(label.reshape(-1).long(), probability.shape[1]).to(probability.dtype)
    metric = CalibrationErrorMetric(num_bins)
    metric(*(values.T.contiguous()[None, :, :, None] for values in (probability, one_hot)))  # samples as pixels
    value = metric.aggregate()
    assert isinstance(value, torch.Tensor)
    return float(value)


def _log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], 1)
    return logits.log_softmax(1)


def _temperature(logits: torch.Tensor, label: torch.Tensor, weight: np.ndarray) -> float:
    values, chosen = logits.detach().double().cpu(), label.long().cpu()[:, None]

    def loss(log_temperature: float) -> float:
        log_probability = _log_probabilities(values / math.exp(log_temperature)).gather(1, chosen).squeeze(1)
        return -float((log_probability * torch.as_tensor(weight)).sum())

    limit = math.log(WIDEST)
    return math.exp(minimize_scalar(loss, bounds=(-limit, limit), method="bounded").x)


def calibrate(
    net: torch.nn.Module,
    loader: Iterable[Mapping[str, Any]],
    level: float = 0.9,
    cluster_key: str = "cluster",
    image_key: str = "image",
    label_key: str = "label",
    predict: Predict | None = None,
    classification: bool | None = None,
    likelihood: LikelihoodLoss | None = None,
) -> Calibration:
    """
    Calibrate a network's predictions for new clusters on clusters that it was not trained on.

    Args:
        net: a trained network, called with the image alone: what it then does, the population's prediction or an
            inferred cluster, is its policy for unknown clusters.
        loader: batches of held-out clusters.
        level: wanted coverage of a new cluster's samples.
        cluster_key: key of what tells the held-out clusters apart, numbers or names; -1, not known, does not.
        image_key: key of the network's input.
        label_key: key of the label.
        predict: what is called in place of the network, such as a function that adapts it first, or
            ``functools.partial(net, unknown="population")``.
        classification: see :py:class:`Calibration`.
        likelihood: loss of the training. Of counts (``PoissonLikelihoodLoss``, ``NegativeBinomialLikelihoodLoss``) the
            network gives the logarithm of the mean, and intervals are of counts.

    Returns:
        the calibration.

    Raises:
        ValueError: when there is no batch, a cluster is not known, or there are too few clusters.

    Example:
        >>> calibration = calibrate(net, held_out_loader, level=0.9, cluster_key="site")
        >>> calibration.sets(net(new_images))
    """
    weight = next(net.parameters(), torch.empty(0))  # a network without weights takes samples on the CPU
    device = weight.device
    predictions, labels, clusters = [], [], []
    with torch.no_grad(), eval_mode(net):
        for batch in loader:
            image = torch.as_tensor(batch[image_key]).to(device)
            predictions.append((predict or net)(image).cpu())
            labels.append(torch.as_tensor(batch[label_key]).cpu())
            clusters += np.asarray(batch[cluster_key]).reshape(-1).tolist()
    if not predictions:
        raise ValueError("the loader gave no batch: a calibration needs held-out clusters.")
    if any(isinstance(c, (int, float)) and c < 0 for c in clusters):
        raise ValueError(
            f"batch[{cluster_key!r}] is -1 for some samples, which says not which cluster: name the key that does, "
            "such as cluster_key='site'."
        )
    log_link = likelihood is not None and likelihood.family in COUNTS
    prediction, label = torch.cat(predictions), torch.cat(labels)
    calibration = Calibration(prediction, label, clusters, level, classification, log_link)
    if not (calibration.classification or log_link) and like_log_counts(prediction, label):
        warnings.warn(
            "the labels look like counts and the predictions go below zero: if these are logarithms, say "
            "likelihood=PoissonLikelihoodLoss().",
            UserWarning,
            stacklevel=2,
        )
    return calibration
