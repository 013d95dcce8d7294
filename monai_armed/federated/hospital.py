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

"""What a hospital does: it answers the server's messages with its own data and its own random effects."""

from __future__ import annotations

import math

from monai.data import DataLoader

from ..bundle.erasure import Erasure
from ..bundle.training import Training
from ..networks.erasure import layer_sums
from ..networks.nets.armed import ARMED
from ..networks.random_effects_fit import fit_random_effects
from ..utils.parallel import unwrap
from .message import Message
from .shared import load_shared, prior_as_it_is, shared_state

__all__ = ["Hospital", "fit_own_effects"]

STEPS = 1000  # after 300 two inferences of the same effects, of other draws, differ by 6 % on the spirals; now by 2 %


class Hospital:
    """
    One hospital of a federated training: trains on its own samples what the server sends, and answers with what
    :py:func:`monai_armed.federated.shared_state` gives. The posteriors of its clusters and the optimizer's state
    stay in its folder, from where a hospital that was killed goes on.

    Its objective is the mean error over its own samples and the KL term of its own clusters. Averages are weighted by
    samples: with ``lambda_kl`` = 1 / (its own samples) the whole is the pooled objective with 1 / (all samples).

    Args:
        training: of a bundle, whose clusters are the hospital's own, and whose network has no adversary.

    Raises:
        ValueError: when the network has an adversary, or is no :py:class:`monai_armed.networks.nets.ARMED`.

    Example:
        >>> hospital = Hospital(parser.get_parsed_content("training"))
        >>> hospital.answer(Message("start")).tensors.keys()
    """

    def __init__(self, training: Training) -> None:
        network = unwrap(training.network)
        if not isinstance(network, ARMED):
            raise ValueError(f"the network must be an ARMED network, got {type(network).__name__}.")
        shared_state(network)  # refuses an adversary
        self.training, self.network, self.started = training, network, False

    def answer(self, message: Message) -> Message:
        """
        Args:
            message: of the server.

        Returns:
            the answer.

        Raises:
            ValueError: when the message is of another kind or another network, or training diverges.
        """
        answers = {"start": self._start, "train": self._train, "sums": self._sums, "finish": self._finish}
        if message.kind not in answers:
            raise ValueError(f"a hospital answers {', '.join(answers)}, got {message.kind!r}.")
        if not self.started and message.kind != "start":
            self.training.checkpoint.load(self.training.trainer)  # it was killed, and goes on
        self.started = True
        if message.tensors:
            load_shared(self.network, message.tensors)
        return answers[message.kind](message)

    def _start(self, message: Message) -> Message:
        self.training.clear()
        return Message("start", shared_state(self.network), {"layers": list(self.network.erased_layers)})

    def _train(self, message: Message) -> Message:
        trainer, epochs = self.training.trainer, message.about["epochs"]
        state = trainer.state
        if not state.epoch_length:
            raise ValueError("the training samples do not fill a single batch: give a smaller batch_size.")
        state.epoch = message.about["round"] * epochs  # also after a round that this hospital has missed
        state.iteration, state.max_epochs = state.epoch * state.epoch_length, state.epoch + epochs
        trainer.run()
        samples = len(trainer.data_loader.dataset)  # type: ignore[union-attr,arg-type]
        about = {"samples": samples, "metric": float("nan"), "metric_name": ""}
        if (validator := self.training.checkpoint.validator) is not None:
            about["metric_name"] = name = validator.state.key_metric_name  # type: ignore[attr-defined]
            about["metric"] = float(validator.state.metrics.get(name, math.nan))
        return Message("train", shared_state(self.network), about)

    def _sums(self, message: Message) -> Message:
        erasure = self._erasure
        sums = layer_sums(
            self.network, message.about["layer"], _batches(erasure), erasure.num_classes, erasure.num_values
        )
        return Message("sums", sums.state_dict(), {"num_classes": sums.num_classes, "num_values": sums.num_values})

    def _finish(self, message: Message) -> Message:
        if self.training.erasure is not None and len(self.network.random_slopes):
            fit_own_effects(self.network, self._erasure)
        if self.training.z_predictor is not None:
            self.training.z_predictor.trainer.run()  # of its own clusters
        self.training.write(self.network)
        return Message("finish")

    @property
    def _erasure(self) -> Erasure:
        """What the bundle says of the erasure: its data, loss and label."""
        if not isinstance(self.training.erasure, Erasure):
            raise ValueError("the network has erasers, and the training no erasure: give it a bundle's Erasure.")
        return self.training.erasure


def fit_own_effects(network: ARMED, erasure: Erasure) -> None:
    """
    Learn the random effects of a hospital's clusters around what is shared, their prior as it is.

    Args:
        network: the network, changed in place.
        erasure: which has the data and the loss.
    """
    with prior_as_it_is(network):
        fit_random_effects(network, _batches(erasure), erasure.loss, steps=STEPS, seed=erasure.seed)


def _batches(erasure: Erasure) -> DataLoader:
    return DataLoader(erasure.dataset, batch_size=erasure.batch_size, num_workers=0)
