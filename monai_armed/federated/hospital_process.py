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

"""A hospital in a process of its own, which may be killed."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..compare.fold_processes import end_with_parent
from ..compare.study_bundle import StudyBundle
from .hospital import Hospital
from .hospital_config import hospital_config, hospital_training
from .message import Message

__all__ = ["HospitalProcess"]

_hospitals: list[Hospital] = []  # in its process the one


class HospitalProcess:
    """
    Answers as a :py:class:`monai_armed.federated.Hospital` does. If its process is killed, such as by the system for
    want of memory, a new one goes on from its folder with the same question. The process ends with this one.

    Args:
        study, folder, number, hospitals: of :py:func:`monai_armed.federated.hospital_config.hospital_config`.
    """

    def __init__(self, study: StudyBundle, folder: Path, number: int = 0, hospitals: int = 1) -> None:
        self.config = (study, folder, number, hospitals)
        self.pool: ProcessPoolExecutor | None = None

    def answer(self, message: Message) -> Message:
        """
        Args:
            message: of the server.

        Returns:
            the answer.

        Raises:
            ValueError: see :py:meth:`monai_armed.federated.Hospital.answer`; or when the process is killed at the same
                question again.
        """
        for _ in range(2):
            if self.pool is None:
                spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
                self.pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=end_with_parent)
            try:
                return _unpacked(self.pool.submit(_answer, self.config, _packed(message)).result())
            except BrokenProcessPool:
                self.pool = None
        raise ValueError(
            f"the hospital's process was killed twice at {message.kind!r}, such as by the system for want of memory: "
            "give it a smaller batch_size, or more memory."
        )

    def close(self) -> None:
        """End the process."""
        if self.pool is not None:
            self.pool.shutdown()
            self.pool = None


def _answer(config: tuple[Any, ...], packed: Any) -> Any:
    if not _hospitals:
        _hospitals.append(Hospital(hospital_training(hospital_config(*config))))
    return _packed(_hospitals[0].answer(_unpacked(packed)))


def _packed(message: Message) -> Any:
    """As arrays: tensors would cross in shared memory, which ends with the process that is killed."""
    return message.kind, {name: tensor.numpy() for name, tensor in message.tensors.items()}, message.about


def _unpacked(packed: Any) -> Message:
    kind, arrays, about = packed
    return Message(kind, {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}, about)
