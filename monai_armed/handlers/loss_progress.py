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

from typing import TYPE_CHECKING, Any

from ignite.handlers.tqdm_logger import ProgressBar

from .loss_terms import loss_terms
from .random_effects_writer import is_main_process

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["LossProgress"]


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
