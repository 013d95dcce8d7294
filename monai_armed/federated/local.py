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

"""Federated training of simulated hospitals in one process, without a network."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ..compare.study_bundle import StudyBundle
from .hospital import Hospital
from .hospital_config import hospital_config, hospital_training
from .message import Message
from .record import recorded
from .rounds import federate

__all__ = ["run_locally", "without_logs"]


def run_locally(
    study: StudyBundle, folder: Path, hospitals: int, rounds: int, local_epochs: int
) -> dict[str, torch.Tensor]:
    """
    Args:
        study: the bundle, see :py:func:`monai_armed.federated.hospital_config.hospitals_study`.
        folder: where each hospital, ``site-1`` and so on, has a folder for what is its own; ``messages.csv`` in it has
            the names of all that crossed, and ``shared.pt`` what the hospitals share in the end.
        hospitals: how many there are; the bundle's clusters are shared out among them.
        rounds, local_epochs: see :py:func:`monai_armed.federated.federate`.

    Returns:
        what the hospitals share in the end.
    """
    present = {
        f"site-{number + 1}": Hospital(
            hospital_training(hospital_config(study, folder / f"site-{number + 1}", number, hospitals))
        )
        for number in range(hospitals)
    }

    def ask(message: Message) -> dict[str, Message]:
        with without_logs():
            return {name: hospital.answer(message) for name, hospital in present.items()}

    shared = federate(recorded(ask, folder / "messages.csv"), rounds, local_epochs)
    torch.save(shared, folder / "shared.pt")
    return shared


@contextmanager
def without_logs() -> Iterator[None]:
    """What each of many trainings says of each epoch is left out; warnings are not."""
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
