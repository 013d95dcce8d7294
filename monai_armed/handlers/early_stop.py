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

from typing import Any

from ignite.engine import Engine
from monai.handlers import EarlyStopHandler

__all__ = ["ResumableEarlyStop"]


class ResumableEarlyStop(EarlyStopHandler):
    """
    MONAI's ``EarlyStopHandler`` with a state that can be saved, so that patience is not forgotten when interrupted
    training goes on.

    Args:
        args: those of MONAI's, as are ``kwargs``.
        first_epoch: validations before this epoch of the trainer do not count, for training whose aim changes then.
    """

    def __init__(self, *args: Any, first_epoch: int = 1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.first_epoch = first_epoch

    def __call__(self, engine: Engine) -> None:
        """Args: engine: the validator, or the trainer."""
        if self._handler is None or self._handler.trainer.state.epoch >= self.first_epoch:
            super().__call__(engine)

    def state_dict(self) -> dict[str, Any]:
        """Best score and number of epochs without improvement."""
        return {} if self._handler is None else dict(self._handler.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Args: state: from :py:meth:`state_dict`; the trainer must have been set."""
        if self._handler is not None:
            self._handler.load_state_dict(state)
