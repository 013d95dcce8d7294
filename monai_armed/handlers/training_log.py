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

"""What is shown of training and of its validation."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch.distributed
from ignite.engine import Engine, Events
from ignite.handlers.tqdm_logger import ProgressBar
from monai.handlers import StatsHandler, TensorBoardStatsHandler
from torch.utils.tensorboard import SummaryWriter

from ..engines.adversary_monitor import AdversaryMonitor
from ..utils.parallel import is_main_process, process_rank

__all__ = ["LossProgress", "TrainingLog", "ValidationLog", "loss_terms"]

TERMS = ("loss", "mixed", "fixed", "adversary", "confusion", "kl")


def loss_terms(output: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """
    The loss and its terms in a trainer's output, as numbers; the ``output_transform`` of MONAI's ``StatsHandler`` and
    ``TensorBoardStatsHandler``.

    Args:
        output: ``engine.state.output`` of :py:class:`monai_armed.engines.ARMEDTrainer` or ``SupervisedTrainer``.
    """
    if isinstance(output, Sequence):  # decollated
        output = output[0]
    # numbers where MONAI has decollated the output
    return {name: float(torch.as_tensor(output[name]).detach()) for name in TERMS if name in output}


class LossProgress(ProgressBar):
    """
    Ignite's ``ProgressBar`` as a handler of a config: shows the loss and its terms, in the main process alone.

    Args:
        options: arguments of ``ProgressBar``, such as ``desc``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(disable=not is_main_process(), **options)

    def attach(self, engine: Engine) -> None:  # type: ignore[override]
        """Args: engine: a trainer; or an evaluator, which has no loss to show."""
        super().attach(engine, output_transform=loss_terms)


class TrainingLog:
    """
    Ignite handler that shows how training goes: the adversary's verdict in words, curves for TensorBoard and a progress
    bar. The curves are the loss and its terms by iteration, and by epoch what the engine has measured, such as the
    adversary's loss, which is why they come after it.

    Args:
        log_dir: folder of TensorBoard's event file; each of several processes has one of its own in it.
        every: number of iterations from one point of the curves to the next.
    """

    def __init__(self, log_dir: str, every: int = 1) -> None:
        self.writer = _writer(log_dir)
        curves = TensorBoardStatsHandler(self.writer, iteration_log=every, output_transform=loss_terms)
        self.handlers = (AdversaryMonitor(), curves, LossProgress())

    def attach(self, engine: Engine) -> None:
        """Args: engine: the trainer; attach this after what else writes into ``engine.state.metrics``."""
        for handler in self.handlers:
            handler.attach(engine)
        engine.add_event_handler(Events.COMPLETED, self.writer.close)


class _PatientWriter(SummaryWriter):
    """MONAI's handler flushes after each number, for which a small network waits longer than for its optimizer."""

    flushed = 0.0
    flush_all = SummaryWriter.flush

    def flush(self) -> None:
        """Write what waits, at most once a second; ``flush_all`` and ``close`` write the rest."""
        if time.monotonic() - self.flushed > 1:
            super().flush()
            self.flushed = time.monotonic()


_WRITERS: WeakValueDictionary[str, _PatientWriter] = WeakValueDictionary()  # those in use, by folder


def _writer(log_dir: str) -> _PatientWriter:
    """The one of this folder in this process: the curves of training and validation lie in one event file."""
    folder = Path(log_dir).resolve()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        folder /= f"rank{process_rank()}"
    writer = _WRITERS.get(str(folder))
    if writer is None:
        writer = _WRITERS[str(folder)] = _PatientWriter(str(folder))
    return writer


class ValidationLog:
    """
    Ignite handler that shows the metrics of validation, as text and as curves for TensorBoard.

    Args:
        log_dir: folder of TensorBoard's event file, which is that of a :py:class:`TrainingLog` of the same folder.
    """

    def __init__(self, log_dir: str) -> None:
        self.writer = _writer(log_dir)
        curves = TensorBoardStatsHandler(self.writer, iteration_log=False)
        self.handlers = (StatsHandler(name="validation", iteration_log=False), curves)

    def attach(self, engine: Engine) -> None:
        """Args: engine: the evaluator that validates."""
        for handler in self.handlers:
            handler.attach(engine)
        engine.add_event_handler(Events.COMPLETED, self.writer.flush_all)
