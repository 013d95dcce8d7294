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

import numpy as np
import pandas as pd
import torch
from aec_samples import network

from monai_armed.studies.cells.known_features import known_features
from monai_armed.studies.cells.outputs import CellOutputs

SIDE = 32


def outputs(number: int, seed: int) -> CellOutputs:
    """Ellipses of some elongation, two frames each; of their latents the first unit is the elongation."""
    rng = np.random.default_rng(seed)
    elongation = np.repeat(rng.uniform(1, 2.2, number), 2)
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    images = np.stack([0.1 + 0.5 * ((x / (6 * e)) ** 2 + (y / 6) ** 2 < 1) for e in elongation])[:, None]
    images += 0.002 * rng.standard_normal(images.shape)
    latent = rng.standard_normal((2 * number, 8))
    latent[:, 0] = elongation
    cells = [str(i // 2) for i in range(2 * number)]
    rows = pd.DataFrame({"batch": "a", "cell": cells, "cluster": 0, "label": 0})
    return CellOutputs(rows, latent.astype(np.float32), images.astype(np.float32))


def test_what_a_latent_holds_is_said_by_feature_and_partition():
    torch.manual_seed(0)
    table = known_features(network(), {"train": outputs(40, 0), "unseen": outputs(20, 1)})
    assert set(table["partition"]) == {"unseen"} and (table["cells"] == 20).all()
    found = table.set_index("feature")["r"]
    assert found["elongation"] > 0.95 and abs(found["granularity"]) < 0.8
    assert set(table.dropna(subset="slope")["feature"]) <= {"size", "elongation"}
