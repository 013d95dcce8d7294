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

from monai_armed.networks.layers.image_light import light_plane, measure_light
from monai_armed.transforms import RandTurnCelld

LIGHT = torch.tensor([[0.2, 0.1, -0.05]])  # from one side, and from above


def image() -> tuple[torch.Tensor, torch.Tensor]:
    """A cell that is alike in none of the eight positions, on a background that is brighter on one side."""
    cell = torch.zeros(1, 64, 64)
    cell[:, 20:40, 24:30] = 0.4
    cell[:, 34:40, 24:40] = 0.4
    return cell, light_plane(LIGHT, cell.shape[1:])[0]


def test_the_cell_is_turned_in_all_seven_ways_and_the_light_in_none():
    cell, plane = image()
    turn = RandTurnCelld("image", prob=1).set_random_state(0)
    found = [turn({"image": cell + plane})["image"] for _ in range(60)]
    ways = {tuple((x - plane > 0.2).flatten().nonzero().flatten().tolist()) for x in found}
    assert len(ways) == 7 and tuple((cell > 0.2).flatten().nonzero().flatten().tolist()) not in ways
    lights = torch.cat([measure_light(x[None]).background for x in found])
    assert (lights - LIGHT).abs().max() < 0.005  # turned with the cell, the gains would change by up to 0.2


def test_an_image_is_left_as_it_is_with_probability_one_less():
    cell, plane = image()
    assert torch.equal(RandTurnCelld("image", prob=0)({"image": cell + plane})["image"], cell + plane)


def test_what_is_no_grey_square_is_refused():
    with pytest.raises(ValueError, match=r"image must be a grey square .* got \(1, 4, 6\)"):
        RandTurnCelld("image")({"image": torch.zeros(1, 4, 6)})
