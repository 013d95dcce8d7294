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

import torch

__all__ = ["can_look", "check_index"]


def can_look(tensor: torch.Tensor) -> bool:
    """Whether Python may look at values: not while a graph is recorded, nor inside ``torch.func.vmap``."""
    return not (
        torch.jit.is_tracing()
        or torch.compiler.is_compiling()
        or torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )


def check_index(index: torch.Tensor, count: int, called: str = "cluster", owner: str = "the network has") -> None:
    """
    Refuse indices that are out of range before anything is looked up with them: on a GPU a look-up that fails ends the
    process's use of it. Where a graph is recorded nothing is checked.

    Args:
        index: integers, -1 where not known.
        count: number of clusters.
        called: what the index is of, such as ``"cluster"`` or ``"site"``.
        owner: who has the clusters.

    Raises:
        ValueError: when one is below -1 or not below ``count``; names it.
    """
    if not can_look(index) or not index.numel():
        return
    index = index.long()  # -1 is 255 to an unsigned type
    lowest, highest = index.aminmax()
    if lowest < -1 or highest >= count:
        out_of_range = (index < -1) | (index >= count)
        raise ValueError(
            f"{called} index {int(index[out_of_range][0])} is out of range: {owner} clusters 0 to {count - 1}, and -1 "
            "means not known."
        )
