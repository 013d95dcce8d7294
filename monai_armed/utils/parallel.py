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

from typing import TypeVar, cast

import torch.nn as nn

__all__ = ["unwrap"]

Network = TypeVar("Network", bound=nn.Module)


def unwrap(network: Network) -> Network:
    """The network itself, out of ``DistributedDataParallel``, ``DataParallel`` and what ``torch.compile`` returns."""
    inner: nn.Module = network
    while isinstance(inner, (nn.parallel.DistributedDataParallel, nn.DataParallel)) or hasattr(inner, "_orig_mod"):
        inner = cast(nn.Module, inner._orig_mod if hasattr(inner, "_orig_mod") else inner.module)
    return cast(Network, inner)
