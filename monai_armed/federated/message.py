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

"""What crosses between a hospital and the server: nothing else does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

__all__ = ["Message"]


@dataclass
class Message:
    """
    A question of the server, or a hospital's answer.

    Args:
        kind: what is asked: ``"start"``, ``"train"``, ``"keys"``, ``"sums"`` or ``"finish"``; an answer has that of
            its question.
        tensors: by name, see :py:func:`monai_armed.federated.shared_state`; of an answer to "sums" one, ``"masked"``,
            which hides those of :py:func:`monai_armed.federated.sums.sums_to_add`.
        about: numbers and names beside them, such as how many samples they are of.
    """

    kind: str
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
