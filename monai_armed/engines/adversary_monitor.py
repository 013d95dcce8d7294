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
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.metrics.embedding_collapse import compute_embedding_collapse

from ..losses.armed_loss import ARMEDLoss
from ..losses.cluster_losses import ClusterCrossEntropyLoss

__all__ = ["AdversaryMonitor", "adversary_verdict", "task_verdict"]

logger = logging.getLogger(__name__)

AT_CHANCE, WINS, MISLED = 0.95, 0.5, 1.05  # shares of the loss of guessing
LEARNED, NOTHING = 0.1, 0.02  # shares of a constant's loss that are saved
EPOCHS, STEPS = 3, 100  # so long a network may take until it has learned something
FEW = 0.1  # of the dimensions that features could have
PREDICTIONS = ("fixed", "mixed")  # whose loss is held against a constant's
LOOKED_AT = 64  # batches of a long epoch, spread over it: more would cost time and tell no more
MOST_KEPT = 2**18  # numbers that wait until they are looked at


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


def task_verdict(saved: Sequence[float], rank: Sequence[float]) -> str:
    """
    Whether the task suffers, in words.

    Args:
        saved: share of the loss of a constant prediction that the fixed prediction saves, of each epoch so far.
        rank: effective rank of the features, as a share of what it could be, of each epoch; empty where not known.

    Returns:
        a sentence that begins with ``"losing the task"``, ``"nothing learned"``, ``"little learned"`` or ``"features
        collapsed"``, or nothing where nothing is wrong.
    """
    if max(saved) >= LEARNED and saved[-1] < max(saved) / 2:
        return (
            f"losing the task: the fixed prediction saves {saved[-1]:.0%} of a constant's loss, it saved "
            f"{max(saved):.0%} before; the adversary harms it: lower lambda_adversary."
        )
    if len(saved) >= EPOCHS and max(saved[-EPOCHS:]) < NOTHING:
        return (
            f"nothing learned: for {EPOCHS} epochs the fixed prediction has been no better than a constant; lower "
            "lambda_adversary, begin with a warm-up of the reversal, or see whether the input tells the label at all."
        )
    if len(saved) >= EPOCHS and max(saved) < LEARNED:
        return (
            f"little learned: in {len(saved)} epochs the fixed prediction has saved {max(saved):.0%} of a constant's "
            "loss at most; if the same training with lambda_adversary 0 saves more, the adversary harms it: lower "
            "lambda_adversary or begin with a warm-up of the reversal."
        )
    if rank and rank[-1] < FEW and rank[-1] <= max(rank) / 2:
        return (
            f"features collapsed: their effective rank is {rank[-1]:.1%} of what it could be, it was {max(rank):.1%}; "
            "features that say nothing hide the cluster best: lower lambda_adversary."
        )
    return ""


class AdversaryMonitor:
    """
    Ignite handler that keeps the adversary's loss of each epoch beside that of guessing, and logs in words how it does
    (:py:func:`adversary_verdict`) after the first epoch and whenever that changes. Guessing by the clusters' sizes
    costs the entropy of the clusters (within each class, for a class-conditional adversary): ln(C) if they are of one
    size, less if not. Both go into ``engine.state.metrics`` as ``adversary_loss`` and ``adversary_chance``, and with
    the verdict into ``history``; of a long epoch at least 64 batches are looked at, spread over it.

    It warns where the task suffers (:py:func:`task_verdict`); features count there that an :py:class:`ARMEDTrainer` has
    trained, by MONAI's measure of their collapse. At the end it logs what the fixed and the mixed prediction save of a
    constant's loss: an adversary that slows the task from its first step on is seen only beside a training without it.
    A network without an adversary is left alone. An ``ARMEDTrainer`` has a monitor also if none is attached to it.

    Example:
        >>> AdversaryMonitor().attach(trainer)  # an ARMEDTrainer or MONAI's SupervisedTrainer
    """

    def __init__(self) -> None:
        self.history: list[dict] = []
        self._cross_entropy = ClusterCrossEntropyLoss()
        self._waiting: list[dict[str, torch.Tensor]] = []  # batches that are not looked at yet
        self._batches: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._sums: list[torch.Tensor] = []
        self._errors: list[torch.Tensor] = []  # of a constant prediction, the fixed and the mixed one
        self._constant: torch.Tensor | None = None  # mean logits so far
        self._features: torch.Tensor | None = None
        self._uniform = 0.0

    def attach(self, engine: Engine) -> None:
        """Args: engine: the trainer."""
        engine.adversary_monitor = self  # type: ignore[attr-defined]
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._keep)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._report)
        engine.add_event_handler(Events.COMPLETED, self._conclude)

    def _keep(self, engine: Engine) -> None:
        """What an iteration has; it is looked at later, with that of others: one by one costs small networks more."""
        if engine.state.iteration % max(1, (engine.state.epoch_length or 1) // LOOKED_AT):
            return
        output = engine.state.output
        assert isinstance(output, Mapping)
        pred, target = output["pred"], output["label"]
        if not isinstance(pred, Mapping) or "adversary" not in pred:
            return
        batch = {"adversary": pred["adversary"].detach(), "cluster": target["cluster"], "label": target["label"]}
        if isinstance(getattr(engine, "loss_function", None), ARMEDLoss):
            batch.update({name: pred[name].detach() for name in PREDICTIONS if name in pred})
        self._features = output.get("features")
        if self._waiting and _shapes(self._waiting[0]) != _shapes(batch):
            self._look(engine)
        self._waiting.append(batch)
        if len(self._waiting) * sum(values.numel() for values in batch.values()) > MOST_KEPT:
            self._look(engine)

    @torch.no_grad()
    def _look(self, engine: Engine) -> None:
        """Sum what waits. The sums are read at the end of the epoch: reading a number makes a GPU wait."""
        batch = {name: torch.cat([b[name] for b in self._waiting]) for name in self._waiting[0]}
        self._waiting.clear()
        logits, cluster, label = batch["adversary"], batch["cluster"], batch["label"]
        classes = label.reshape(-1).long() if logits.ndim == 3 else torch.zeros_like(cluster)
        self._uniform = math.log(logits.shape[1])
        self._sums.append(self._cross_entropy(logits, cluster, classes) * (cluster >= 0).sum())
        self._batches.append((cluster, classes))
        if "fixed" in batch:
            fixed, loss = batch["fixed"], engine.loss_function  # type: ignore[attr-defined]
            mean = fixed.transpose(0, 1).flatten(1).mean(1).unflatten(0, (-1, *[1] * (fixed.ndim - 2)))
            self._constant = mean if self._constant is None else self._constant.lerp(mean, 1 / (len(self._errors) + 1))
            guesses = (self._constant.expand_as(fixed), *(batch[name] for name in PREDICTIONS if name in batch))
            self._errors.append(len(fixed) * torch.stack([loss.error(guess, label) for guess in guesses]))

    def _report(self, engine: Engine) -> None:
        if self._waiting:
            self._look(engine)
        if not self._sums:
            return
        cluster, label = (torch.cat(parts).cpu() for parts in zip(*self._batches))
        known = cluster >= 0
        loss = float(torch.stack(self._sums).sum()) / max(1, int(known.sum()))
        row: dict[str, Any] = {"epoch": engine.state.epoch, **self._task()}
        for kept in (self._sums, self._batches, self._errors):
            kept.clear()
        chance = _conditional_entropy(cluster[known], label[known])
        if chance == 0:  # one cluster, or one in each class: there is nothing to tell apart
            return
        row.update(loss=loss, chance=chance, ratio=loss / chance)
        self.history.append(row)
        ratios, saved, rank = ([r[name] for r in self.history if name in r] for name in ("ratio", "saved", "rank"))
        row["verdict"] = adversary_verdict(ratios, self._uniform / chance)
        row["task"] = task_verdict(saved, rank) if saved and engine.state.iteration >= STEPS else ""
        engine.state.metrics.update(adversary_loss=loss, adversary_chance=chance)
        before = self.history[-2] if len(self.history) > 1 else {"verdict": "", "task": ""}
        if row["verdict"] != before["verdict"]:
            figures = f"loss {loss:.3f} nats, guessing {chance:.3f}, ln(C) {self._uniform:.3f}"
            logger.info(f"adversary, epoch {engine.state.epoch}: {figures}: {row['verdict']}")
        if row["task"][:8] != before["task"][:8]:  # the kind of trouble: its figures change each time
            logger.warning(f"adversary, epoch {engine.state.epoch}: {row['task'] or 'the task is learned now.'}")

    def _conclude(self, engine: Engine) -> None:
        """Say what was learned beside the adversary: nothing in one training tells what would have been without it."""
        last = self.history[-1] if self.history else {}
        if "saved" in last:
            mixed = f", the mixed one {last['saved_mixed']:.0%}" if "saved_mixed" in last else ""
            logger.info(
                "adversary, end: on the training data "
                f"the fixed prediction saves {last['saved']:.0%} of a constant's loss{mixed}; the "
                "same training with lambda_adversary 0 tells what the adversary costs."
            )

    def _task(self) -> dict[str, float]:
        """What the predictions save of a constant's loss in this epoch, and the rank of the last features."""
        found: dict[str, float] = {}
        if self._errors:
            of_constant, *errors = torch.stack(self._errors).sum(0).tolist()
            shares = [(of_constant - error) / max(abs(of_constant), 1e-12) for error in errors]
            found.update(zip(("saved", "saved_mixed"), shares))
        if self._features is not None and min(len(self._features) - 1, self._features.shape[1]) >= 4:
            score = compute_embedding_collapse(self._features.float().cpu(), include_indicators=["effective_rank"])
            found["rank"] = 1 - float(torch.as_tensor(score["effective_rank_score"]))
        return found


def _shapes(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    """Of a sample of a batch."""
    return {name: values.shape[1:] for name, values in batch.items()}


def _conditional_entropy(cluster: torch.Tensor, label: torch.Tensor) -> float:
    """Entropy of the cluster among samples of one class, in nats, averaged over samples."""
    _, joint = (label * 2**32 + cluster).unique(return_counts=True)  # a pair as one number, which sorts faster
    _, marginal = label.unique(return_counts=True)
    shares = [counts.double() / len(cluster) for counts in (joint, marginal)]
    return float(torch.special.entr(shares[0]).sum() - torch.special.entr(shares[1]).sum())
