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

import torch.distributed
import torch.nn as nn

__all__ = ["is_main_process", "process_rank", "unwrap"]

Network = TypeVar("Network", bound=nn.Module)


def unwrap(network: Network) -> Network:
    """The network itself, out of ``DistributedDataParallel``, ``DataParallel`` and what ``torch.compile`` returns."""
    inner: nn.Module = network
    while isinstance(inner, (nn.parallel.DistributedDataParallel, nn.DataParallel)) or hasattr(inner, "_orig_mod"):
        inner = cast(nn.Module, inner._orig_mod if hasattr(inner, "_orig_mod") else inner.module)
    return cast(Network, inner)


def process_rank() -> int:
    """The number of this process among several that train together; 0 where there is one alone."""
    started = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_rank() if started else 0


def is_main_process() -> bool:
    """Whether this is the process that writes: the only one, or the first of several."""
    return process_rank() == 0
