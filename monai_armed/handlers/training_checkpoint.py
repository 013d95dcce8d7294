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

import io
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from ignite.engine import Engine, Events

from ..data.checksums import check_shipped
from ..data.replaced_file import remove_partial, replaced_file
from ..utils.parallel import is_main_process, unwrap

__all__ = ["TrainingCheckpoint", "load_weights"]

logger = logging.getLogger(__name__)


def load_weights(
    network: torch.nn.Module, path: str | os.PathLike, device: str | torch.device = "cpu"
) -> torch.nn.Module:
    """
    Load a state dict into a network, with one clear sentence where it does not fit.

    Args:
        network: the network.
        path: file with its state dict.
        device: where to load the tensors to.

    Returns:
        the network.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the weights are of another network or another shape; names the first that differs.
    """
    return load_state(network, read_checkpoint(path, device), path)


def read_checkpoint(path: str | os.PathLike, device: str | torch.device = "cpu") -> Any:
    """What a checkpoint file holds; tensors, numbers and strings only (``weights_only``)."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}: train first, or name another file.")
    check_shipped(path)
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # pickle, zip and torch have errors of their own for a damaged file
        raise ValueError(
            f"checkpoint {path} cannot be read ({type(error).__name__}): it is damaged, or holds more than weights, "
            "such as a whole network; save network.state_dict()."
        ) from error


def load_state(network: torch.nn.Module, state: Mapping[str, Any], path: str | os.PathLike) -> torch.nn.Module:
    """``network.load_state_dict``, strict, with a clear error that names the file."""
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        names = f" (it holds {', '.join(map(repr, list(state)[:4]))})" if isinstance(state, Mapping) else ""
        raise ValueError(
            f"checkpoint {path} is no state dict, weights by name{names}: give the model.pt that training wrote, or "
            "save the network's state_dict() alone."
        )
    for name, weight in state.items():
        if not weight.isfinite().all():
            raise ValueError(f"checkpoint {path} holds NaN or infinite weights in {name}: train again.")
    try:
        network.load_state_dict(state)
    except RuntimeError as error:  # lines: what is missing, what is beyond it, what has another shape
        first = shorten(str(error).splitlines()[1], 250, placeholder=" ...")
        what = "shape" if first.startswith("size mismatch") else "network"
        attached = " and attach its Z-predictor first" if "Unexpected" in first and "z_predictor." in first else ""
        raise ValueError(
            f"checkpoint {path} is of another {what}: {first} Give the config (sites, size, channels) that it was "
            f"trained with{attached}."
        ) from None
    return network


OF_TRAINER = ("network", "optimizer", "adversary_optimizer", "adversary_memory", "scaler")


class TrainingCheckpoint:
    """
    Ignite handler that keeps training safe: after each epoch everything that is needed to go on is written to
    ``folder/checkpoint.pt``, and the network's weights to ``folder/model.pt`` whenever validation is better than ever
    before. Files are replaced in one step, so that a process that is killed leaves the old or the new one. A network
    that has diverged ends training and is not kept. (MONAI's ``CheckpointSaver`` forgets the best metric on resuming,
    and removes the old file before it writes the new.) With a :py:class:`EpochSeed` beside it, training that goes on
    comes to the same result as training that was not interrupted; without, it has other shuffles and draws.

    Args:
        folder: where to write; made if need be.
        objects: what has a state by name beside the trainer's own ``network``, optimizers, gradient scaler and a loss
            that has parameters, such as a scheduler or an early stopping handler.
        validator: evaluator with a key metric; None: the last epoch's weights are the best.
        resume: whether to go on from ``checkpoint.pt`` if there is one, instead of starting anew.
        fingerprint: what tells this training from another one, by name, such as from
            :py:func:`monai_armed.bundle.fingerprint`: a checkpoint with another one is not gone on from.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        objects: Mapping[str, Any] | None = None,
        validator: Engine | None = None,
        resume: bool = False,
        fingerprint: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self.validator, self.resume = Path(folder), validator, resume
        self.objects = dict(objects or {})
        self.fingerprint = None if fingerprint is None else dict(fingerprint)

    @property
    def path(self) -> Path:
        """File of the whole state."""
        return self.folder / "checkpoint.pt"

    @property
    def model_path(self) -> Path:
        """File of the best weights."""
        return self.folder / "model.pt"

    def clear(self) -> None:
        """Remove what an earlier training has left, which a fresh one must not go on from."""
        for path in (self.path, self.model_path):
            path.unlink(missing_ok=True)
        remove_partial(self.folder)

    def attach(self, engine: Engine) -> None:
        """
        Args:
            engine: the trainer; attach this after the handler that validates.
        """
        if self.resume:
            engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def _stateful(self, trainer: Engine) -> dict[str, Any]:
        objects = {**{name: getattr(trainer, name, None) for name in OF_TRAINER}, **self.objects}
        loss = getattr(trainer, "loss_function", None)
        if isinstance(loss, torch.nn.Module) and any(True for _ in loss.parameters()):  # a learned residual s.d.
            objects.setdefault("loss_function", loss)
        found = {name: obj for name, obj in objects.items() if obj is not None}
        return {name: unwrap(obj) if isinstance(obj, torch.nn.Module) else obj for name, obj in found.items()}

    def save(self, engine: Engine) -> None:
        """
        Write the state; the main process only.

        Raises:
            ValueError: when a weight of the network is not finite; what was written before is kept.
        """
        state = {name: obj.state_dict() for name, obj in self._stateful(engine).items()}
        self._check_finite(state["network"], engine.state.epoch)
        if not is_main_process():
            return
        progress: dict[str, Any] = {"epoch": engine.state.epoch, "iteration": engine.state.iteration}
        progress["finished"], progress["max_epochs"] = bool(engine.should_terminate), engine.state.max_epochs
        best = True
        if self.validator is not None:
            validated = self.validator.state
            progress["best_metric"] = float(validated.best_metric)  # type: ignore[attr-defined]
            progress["best_metric_epoch"] = int(validated.best_metric_epoch)  # type: ignore[attr-defined]
            best = progress["best_metric_epoch"] == engine.state.epoch
        if best:
            _write(state["network"], self.model_path)
        _write({**state, "progress": progress, "fingerprint": self.fingerprint}, self.path)

    def _check_finite(self, weights: Mapping[str, torch.Tensor], epoch: int) -> None:
        # a sum costs less than a look at each, and what spoils it may yet be finite
        doubtful = {n: w for n, w in weights.items() if w.is_floating_point() and not math.isfinite(w.sum().item())}
        wrong = [name for name, weight in doubtful.items() if not weight.isfinite().all()]
        if wrong:
            kept = f"the checkpoint before it is kept in {self.folder}" if self.path.is_file() else "nothing is kept"
            raise ValueError(
                f"training has diverged: {wrong[0]} and {len(wrong) - 1} other weights hold NaN or infinite values in "
                f"epoch {epoch}; {kept}: start anew with a lower learning_rate, or a lower lambda_adversary."
            )

    def load(self, engine: Engine) -> None:
        """
        Go on from the state in the file, if there is one.

        Raises:
            ValueError: when the file is damaged, or of another training; names what differs.
        """
        if not self.path.is_file():
            logger.warning(f"there is no checkpoint in {self.folder} to resume from: training starts anew.")
            return
        state = read_checkpoint(self.path, "cpu")
        self._check_fingerprint(state.get("fingerprint"))
        for name, obj in self._stateful(engine).items():
            if name not in state:
                raise ValueError(f"checkpoint {self.path} has no {name!r}: it is of another training config.")
            if isinstance(obj, torch.nn.Module):
                load_state(obj, state[name], self.path)
            else:
                obj.load_state_dict(state[name])
        progress = state["progress"]
        engine.state.epoch, engine.state.iteration = progress["epoch"], progress["iteration"]
        if self.validator is not None:
            self.validator.state.best_metric = progress["best_metric"]  # type: ignore[attr-defined]
            self.validator.state.best_metric_epoch = progress["best_metric_epoch"]  # type: ignore[attr-defined]
        logger.info(f"resumed from epoch {engine.state.epoch} of {self.path}.")
        planned = progress.get("max_epochs", engine.state.max_epochs)
        if planned != engine.state.max_epochs:
            logger.warning(
                f"the training was planned for {planned} epochs, now for {engine.state.max_epochs}: schedules of the "
                "learning rate go on by the old plan, which may not fit; a new training has one that does."
            )
        if progress["finished"]:
            logger.info("it was stopped early there: there is nothing to go on with.")
            engine.terminate()

    def _check_fingerprint(self, found: Mapping[str, str] | None) -> None:
        if self.fingerprint is None:
            return
        if found is None:
            raise ValueError(
                f"checkpoint {self.path} does not say which data and settings it is of: train anew, without resume."
            )
        other = [n for n in {**found, **self.fingerprint} if found.get(n) != self.fingerprint.get(n)]
        if other:
            named = ", ".join(
                f"{n} ({found.get(n, 'not set')}, now {self.fingerprint.get(n, 'not set')})" for n in other
            )
            raise ValueError(
                f"checkpoint {self.path} is of another training, which differs in {named}: give what it was trained "
                "with, or train anew, without resume or in another --output_dir."
            )


def _write(state: Any, path: Path) -> None:
    buffer = io.BytesIO()  # torch.save to a full disk ends the whole program
    torch.save(state, buffer)
    with replaced_file(path) as partial, open(partial, "wb") as file:
        file.write(buffer.getbuffer())
        file.flush()
        os.fsync(file.fileno())
