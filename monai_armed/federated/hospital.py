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
from collections.abc import Callable

import torch
from monai.data import DataLoader
from torch.utils.data import BatchSampler

from ..bundle.erasure import Erasure
from ..bundle.training import Training
from ..networks.erasure import layer_sums
from ..networks.nets.armed import ARMED
from ..networks.random_effects_fit import fit_random_effects
from ..utils.parallel import unwrap
from .masks import Masks
from .message import Message
from .shared import drawn_by_sample, load_shared, prior_as_it_is, shared_state
from .sums import sums_to_add

__all__ = ["Hospital", "fit_own_effects"]

LEAST_BATCH = 2  # batch norm cannot be trained on one sample
STEPS = 1000  # of the inference of random effects


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
        self.masks: Masks | None = None  # of the next sums

    def answer(self, message: Message) -> Message:
        """
        Args:
            message: of the server.

        Returns:
            the answer.

        Raises:
            ValueError: when the message is of another kind or another network, or training diverges.
        """
        answers: dict[str, Callable[[Message], Message]] = {
            "start": self._start,
            "train": self._train,
            "keys": self._keys,
            "sums": self._sums,
            "finish": self._finish,
        }
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
        about = {"layers": list(self.network.erased_layers), "samples": self.samples}
        return Message("start", shared_state(self.network), about)

    def _train(self, message: Message) -> Message:
        trainer, epochs = self.training.trainer, message.about["epochs"]
        state = trainer.state
        state.epoch_length = _share_of_steps(trainer.data_loader, message.about["samples"])  # type: ignore[arg-type]
        if not len(trainer.data_loader):  # type: ignore[arg-type]
            raise ValueError("the training samples do not fill a single batch: give a smaller batch_size.")
        state.epoch = message.about["round"] * epochs  # also after a round that this hospital has missed
        state.iteration, state.max_epochs = state.epoch * state.epoch_length, state.epoch + epochs
        trainer.run()
        about = {"samples": self.samples, "metric": float("nan"), "metric_name": ""}
        if (validator := self.training.checkpoint.validator) is not None:
            about["metric_name"] = name = validator.state.key_metric_name  # type: ignore[attr-defined]
            about["metric"] = float(validator.state.metrics.get(name, math.nan))
        return Message("train", shared_state(self.network), about)

    def _keys(self, message: Message) -> Message:
        self.masks = Masks()
        return Message("keys", {}, {"key": self.masks.key})

    def _sums(self, message: Message) -> Message:
        (masks, self.masks), keys, erasure = (self.masks, None), message.about["keys"], self._erasure
        if masks is None or masks.key not in keys:
            return Message("sums")  # it was killed since its key, or has used it: both are asked for again
        classes, values = erasure.num_classes, erasure.num_values
        sums = sums_to_add(layer_sums(self.network, message.about["layer"], _batches(erasure), classes, values))
        about = {"shapes": {name: list(tensor.shape) for name, tensor in sums.items()}, "num_values": values}
        flat = torch.cat([tensor.reshape(-1).cpu() for tensor in sums.values()])
        return Message("sums", {"masked": masks.hide(flat, keys)}, about)

    def _finish(self, message: Message) -> Message:
        if self.training.erasure is not None and len(self.network.random_slopes):
            fit_own_effects(self.network, self._erasure)
        if self.training.z_predictor is not None:
            trainer = self.training.z_predictor.trainer  # of its own clusters
            samples = message.about.get("samples", self.samples)
            trainer.state.epoch_length = _share_of_steps(trainer.data_loader, samples)  # type: ignore[arg-type]
            trainer.run()
        self.training.write(self.network)
        return Message("finish")

    @property
    def samples(self) -> int:
        """How many it trains on."""
        return len(self.training.trainer.data_loader.dataset)  # type: ignore[union-attr,arg-type]

    @property
    def _erasure(self) -> Erasure:
        """What the bundle says of the erasure: its data, loss and label."""
        if not isinstance(self.training.erasure, Erasure):
            raise ValueError("the network has erasers, and the training no erasure: give it a bundle's Erasure.")
        return self.training.erasure


def _share_of_steps(loader: DataLoader, samples: int) -> int:
    """
    Let a hospital take the steps of the pooled training, and in each its share of the batch. With whole batches of its
    own it would take fewer the smaller it is: an average weighted by samples would then count it by the square of its
    samples, and what comes from so few steps would be trained less than pooled (https://arxiv.org/abs/2007.07481).

    Args:
        loader: of its own samples; its batches are changed in place, unless their sampler is none of torch's.
        samples: of all hospitals; where they are its own alone and fewer than a batch, they are one.

    Returns:
        steps of an epoch.
    """
    sampler, size, own = loader.batch_sampler, loader.batch_size, len(loader.dataset)  # type: ignore[arg-type]
    if type(sampler) is not BatchSampler or size is None:
        return len(loader)
    sampler.batch_size = min(max(LEAST_BATCH, round(size * own / samples)), max(1, own))
    return max(1, samples // size if sampler.drop_last else math.ceil(samples / size))


def fit_own_effects(network: ARMED, erasure: Erasure) -> None:
    """
    Learn the random effects of a hospital's clusters around what is shared, their prior as it is. Draws are of each
    sample: with one a cluster, two inferences of the same 65 effects from other starts and draws differ by 14 to 18 %.

    Args:
        network: the network, changed in place.
        erasure: which has the data and the loss.
    """
    with prior_as_it_is(network), drawn_by_sample(network):
        fit_random_effects(network, _batches(erasure), erasure.loss, steps=STEPS, seed=erasure.seed)


def _batches(erasure: Erasure) -> DataLoader:
    return DataLoader(erasure.dataset, batch_size=erasure.batch_size, num_workers=0)
