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

"""A training as a bundle runs it: from a folder that is its own to one file that is the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset
from monai.engines import Trainer

from monai_armed.bundle.model_file import read_record, write_model
from monai_armed.bundle.models import load_fitting, load_part, takes_cluster
from monai_armed.bundle.run_lock import claimed
from monai_armed.bundle.z_predictor_training import ZPredictorTraining
from monai_armed.data.splits import check_several_clusters
from monai_armed.handlers.training_checkpoint import TrainingCheckpoint, load_state, load_weights, read_checkpoint
from monai_armed.metrics.calibration_file import CALIBRATION
from monai_armed.networks.training_distance import LEAST, TrainingDistance, fit_training_distance
from monai_armed.utils.parallel import is_main_process

__all__ = ["Training"]


class Training:
    """
    Trains a network and, if it takes the cluster, its Z-predictor, and writes both with the training's record as one
    file, ``folder/model.pt``. Nobody else trains into the folder meanwhile; a fresh training clears what an earlier
    one has left there.

    Args:
        trainer: trains the network.
        network: the network, not wrapped for several processes.
        checkpoint: keeps it; says whether training is to go on.
        record: what the training is of, see :py:func:`monai_armed.bundle.training_record`.
        folder: where the model is written.
        z_predictor: training of the Z-predictor, for networks that have a use for it.
        erasure: called with the network when it has its final weights, in every process, such as an
            :py:class:`monai_armed.bundle.Erasure`; what it changes is in the model.
        start_from: finished models by the name of the part of the network that is taken from them before training.
        writer: called with the trainer when the network has its final weights, such as a
            :py:class:`monai_armed.handlers.RandomEffectsWriter`.
        distance_data: the training samples without augmentation, and those of validation, to which the
            :py:class:`monai_armed.networks.training_distance.TrainingDistance` of the model is fitted.
        init_from: a finished model of other clusters, of which before training all is taken that fits, see
            :py:func:`monai_armed.bundle.models.load_fitting`: fine-tuning.
    """

    def __init__(
        self,
        trainer: Trainer,
        network: torch.nn.Module,
        checkpoint: TrainingCheckpoint,
        record: Mapping[str, Any],
        folder: str | Path,
        z_predictor: ZPredictorTraining | None = None,
        start_from: Mapping[str, str] | None = None,
        writer: Callable[[Engine], None] | None = None,
        erasure: Callable[[torch.nn.Module], None] | None = None,
        distance_data: tuple[Dataset, Dataset] | None = None,
        init_from: str | None = None,
    ) -> None:
        self.trainer, self.network, self.checkpoint = trainer, network, checkpoint
        self.record, self.folder = record, Path(folder)
        self.z_predictor = z_predictor if takes_cluster(network) else None
        for part in (self, self.z_predictor):
            if part is not None:
                part.checkpoint.fingerprint = record["fingerprint"]
        self.start_from, self.init_from = dict(start_from or {}), init_from
        self.writer, self.erasure, self.distance_data = writer, erasure, distance_data

    def run(self) -> None:
        """
        Train, and write the model.

        Raises:
            ValueError: when there is but one cluster, another process trains into the folder, training is to go on from
                another one, the samples do not fill a batch, or the network diverges.
        """
        check_several_clusters(self.record["clusters"], "cluster", "the training data")
        with claimed(self.folder, self.checkpoint.folder) if is_main_process() else nullcontext():
            if self.init_from is not None:
                load_fitting(self.network, self.init_from, self.record["clusters"], self.trainer.state.device)
            for name, path in self.start_from.items():
                load_part(self.network, name, path, self.trainer.state.device)
            if not len(self.trainer.data_loader):  # type: ignore[arg-type]
                raise ValueError("the training samples do not fill a single batch: give a smaller batch_size.")
            if is_main_process() and not self.checkpoint.resume:
                self.clear()
            _wait_for_all()
            self.trainer.run()
            self.finish()

    def finish(self) -> None:
        """What comes after the network is trained and kept: its Z-predictor, and the model."""
        if self.z_predictor is not None:
            self.z_predictor.trainer.run()
        _wait_for_all()
        if self.erasure is None and not is_main_process():
            return
        network = load_weights(self.network, self.checkpoint.model_path, self.trainer.state.device)
        if self.erasure is not None:
            self.erasure(network)
        if is_main_process():
            path = self.write(network)
            print(f"model written to {path}: evaluate it with --ckpt_path {path}")

    def clear(self) -> None:
        """Remove what an earlier training into the folder has left."""
        for checkpoint in [self.checkpoint, *([] if self.z_predictor is None else [self.z_predictor.checkpoint])]:
            checkpoint.clear()
        self.model_path.unlink(missing_ok=True)

    @property
    def model_path(self) -> Path:
        """File of the model."""
        return self.folder / "model.pt"

    def write(self, network: torch.nn.Module) -> Path:
        """Write the model of a network that has its final weights; returns its file."""
        if self.writer is not None:
            self.writer(self.trainer)
        if self.z_predictor is not None:
            network.attach_z_predictor(self.z_predictor.finish())  # type: ignore[operator]
        self.model_path.with_name(CALIBRATION).unlink(missing_ok=True)  # of the model before this one
        return write_model(network.state_dict(), self.record, self.model_path, self._distance())

    def add_distance(self, path: str | Path) -> None:
        """
        Fit the distance to the training data of a model that was trained without, from the same data, and write it into
        the model's file, whose weights and record stay as they are.

        Args:
            path: the model, a ``model.pt``.

        Raises:
            ValueError: when the model was trained on other data than these, or there are none to fit to.
        """
        record, state = read_record(path), read_checkpoint(path)
        if record["provenance"] != self.record["provenance"]:
            raise ValueError(f"model {path} was trained on other data than these: give the data and seeds of its own.")
        if self.z_predictor is not None:
            self.network.attach_z_predictor(self.z_predictor.z_predictor)  # type: ignore[operator]
        load_state(self.network, state, path)
        distance = self._distance()
        if distance is None:
            raise ValueError("there are no validation samples, by which to tell what is far: give a larger study.")
        write_model(state, record, path, distance)
        Path(path).with_name(CALIBRATION).unlink(missing_ok=True)  # which is of the file as it was

    def _distance(self) -> TrainingDistance | None:
        if self.distance_data is None or len(self.distance_data[1]) < LEAST:
            return None
        train, held_out = (DataLoader(data, batch_size=64) for data in self.distance_data)
        return fit_training_distance(self.network, train, held_out)


def _wait_for_all() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
