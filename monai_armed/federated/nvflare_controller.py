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

"""NVFLARE's server side: the rounds of :py:func:`monai_armed.federated.federate`, carried by its messages."""

from __future__ import annotations

from pathlib import Path

import torch
from nvflare.app_common.workflows.model_controller import ModelController

from .message import Message
from .nvflare_messages import from_flare, to_flare
from .record import recorded
from .rounds import federate

__all__ = ["FederatedARMED"]


class FederatedARMED(ModelController):
    """
    NVFLARE controller that trains across hospitals. Writes ``messages.csv``, the names of all that crossed, and
    ``shared.pt``, what the hospitals share in the end; until then ``rounds.pt``, from where the job, submitted again
    after an interruption, goes on.

    Args:
        rounds, local_epochs: see :py:func:`monai_armed.federated.federate`.
        folder: where the server writes to.
        timeout: seconds that a hospital may take for an answer; then the round goes on without it. 0: no limit.
    """

    def __init__(self, rounds: int, local_epochs: int, folder: str, timeout: int = 0) -> None:
        super().__init__()
        self.rounds, self.local_epochs, self.folder, self.timeout = rounds, local_epochs, folder, timeout

    def run(self) -> None:
        """The whole training."""
        folder = Path(self.folder)
        ask = recorded(self._ask, folder / "messages.csv")
        shared = federate(ask, self.rounds, self.local_epochs, self.info, folder / "rounds.pt")
        torch.save(shared, folder / "shared.pt")

    def _ask(self, message: Message) -> dict[str, Message]:
        answers = self.send_model_and_wait("train", to_flare(message), timeout=self.timeout)
        return {answer.meta["client_name"]: from_flare(answer) for answer in answers}
