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

"""Messages as NVFLARE carries them."""

from __future__ import annotations

import numpy as np
import torch
from nvflare.app_common.abstract.fl_model import FLModel

from .message import Message

__all__ = ["from_flare", "to_flare"]


def to_flare(message: Message) -> FLModel:
    """A message as NVFLARE's model, of NumPy arrays: NVFLARE needs nothing more to carry it, and unpickles nothing."""
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in message.tensors.items()}
    return FLModel(params=arrays, meta={"kind": message.kind, "about": message.about})


def from_flare(model: FLModel) -> Message:
    """The message that NVFLARE's model carries."""
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in (model.params or {}).items()}
    return Message(model.meta["kind"], tensors, dict(model.meta["about"]))
