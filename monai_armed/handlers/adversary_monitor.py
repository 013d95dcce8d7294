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


from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents

from ..losses.cluster_losses import ClusterCrossEntropyLoss

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["AdversaryMonitor", "adversary_verdict"]

logger = logging.getLogger(__name__)

AT_CHANCE, WINS, MISLED = 0.95, 0.5, 1.05


def adversary_verdict(ratios: Sequence[float], uniform: float = 1.0) -> str:
    """
    What the adversary's loss says, in words.

    Args:
        ratios: its loss over that of guessing, of each epoch so far.
        uniform: the loss of saying the same for every cluster, ln(C), over that of guessing; 1 where clusters are of
            one size. An adversary that has not begun to learn, or is dead, is between the two.

    Returns:
        a sentence that begins with ``"learns"``, ``"wins"``, ``"at chance since the start"``, ``"at chance again"``,
        ``"worse than guessing"`` or ``"not finite"``.
    """
    last = ratios[-1]
    if not math.isfinite(last):
        return "not finite: training has diverged; lower the learning rate or lambda_adversary."
    if last > MISLED * uniform:
        return (
            "worse than guessing: the features change faster than it learns; lower lambda_adversary or give it more "
            "steps or a larger learning rate."
        )
    if last >= AT_CHANCE and min(ratios) >= AT_CHANCE:
        return (
            "at chance since the start: it has learned nothing, so it presses on nothing; either the features hold no "
            "trace of the cluster or it is dead (learning rate, start). audit_features tells which."
        )
    if last >= AT_CHANCE:
        return (
            "at chance again after it had learned: the features hide the cluster from this adversary; only "
            "audit_features tells whether they have forgotten it."
        )
    if last < WINS:
        return "wins: the features tell it the cluster; raise lambda_adversary, if the warm-up is over."
    return "learns: it finds some trace of the cluster in the features."


class AdversaryMonitor:
    """
    Ignite handler that keeps the adversary's loss of each epoch beside that of guessing, and logs in words how it does:
    after the first epoch, and whenever that changes. Guessing by the clusters' sizes costs the entropy of the clusters
    (of each class, for a class-conditional adversary), which is ln(C) if they are of one size and less if not. The loss
    and that of guessing go into ``engine.state.metrics`` as ``adversary_loss`` and ``adversary_chance``, and with the
    verdict into ``history``. A network without an adversary is left alone.

    Example:
        >>> AdversaryMonitor().attach(trainer)  # an ARMEDTrainer or MONAI's SupervisedTrainer
    """

    def __init__(self) -> None:
        self.history: list[dict] = []
        self._cross_entropy = ClusterCrossEntropyLoss()
        self._batches: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._sums: list[torch.Tensor] = []
        self._uniform = 0.0

    def attach(self, engine: Engine) -> None:
        """Args: engine: the trainer."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._keep)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._report)

    def _keep(self, engine: Engine) -> None:
        output = engine.state.output
        assert isinstance(output, Mapping)
        pred, target = output["pred"], output["label"]
        if not isinstance(pred, Mapping) or "adversary" not in pred:
            return
        logits, cluster = pred["adversary"].detach(), target["cluster"]
        label = target["label"].reshape(-1).long() if logits.ndim == 3 else torch.zeros_like(cluster)
        self._uniform = math.log(logits.shape[1])
        loss = self._cross_entropy(logits, cluster, label)
        self._sums.append(loss * (cluster >= 0).sum())  # summed later: reading a number makes a GPU wait
        self._batches.append((cluster, label))

    def _report(self, engine: Engine) -> None:
        if not self._sums:
            return
        cluster, label = (torch.cat(parts).cpu() for parts in zip(*self._batches))
        known = cluster >= 0
        loss = float(torch.stack(self._sums).sum()) / max(1, int(known.sum()))
        self._sums.clear()
        self._batches.clear()
        chance = _conditional_entropy(cluster[known], label[known])
        if chance == 0:  # one cluster, or one in each class: there is nothing to tell apart
            return
        ratio = loss / chance
        verdict = adversary_verdict([*(row["ratio"] for row in self.history), ratio], self._uniform / chance)
        row = {"epoch": engine.state.epoch, "loss": loss, "chance": chance, "ratio": ratio, "verdict": verdict}
        self.history.append(row)
        engine.state.metrics.update(adversary_loss=loss, adversary_chance=chance)
        if len(self.history) == 1 or verdict != self.history[-2]["verdict"]:
            figures = f"loss {loss:.3f} nats, guessing {chance:.3f}, ln(C) {self._uniform:.3f}"
            logger.info(f"adversary, epoch {engine.state.epoch}: {figures}: {verdict}")


def _conditional_entropy(cluster: torch.Tensor, label: torch.Tensor) -> float:
    """Entropy of the cluster among samples of one class, in nats, averaged over samples."""
    _, joint = torch.stack([cluster, label]).unique(dim=1, return_counts=True)
    _, marginal = label.unique(return_counts=True)
    shares = [counts.double() / len(cluster) for counts in (joint, marginal)]
    return float(torch.special.entr(shares[0]).sum() - torch.special.entr(shares[1]).sum())
