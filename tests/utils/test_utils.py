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

import pytest
import torch
from torch.func import vmap
from torch.nn.parallel import DataParallel

from monai_armed.networks import DFNN
from monai_armed.utils import check_index, unwrap


def test_the_index_that_is_out_of_range_is_named():
    check_index(torch.tensor([0, 2, -1]), 3)
    for index in (3, -2):
        with pytest.raises(ValueError, match=rf"site index {index} is out of range: the network has clusters 0 to 2"):
            check_index(torch.tensor([0, index]), 3, "site")


def test_within_vmap_nothing_is_looked_at():
    vmap(lambda index: check_index(index, 3) or index)(torch.tensor([0, 9]))


def test_a_network_comes_out_of_all_that_is_around_it():
    net = DFNN(3)
    compiled = torch.compile(net, backend="eager")
    for wrapped in (net, DataParallel(net), compiled, DataParallel(compiled), DataParallel(DataParallel(net))):
        assert unwrap(wrapped) is net
