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

from monai_armed.studies.cells.latent_separation import fresh_auroc
from monai_armed.studies.cells.outputs import CellOutputs


def outputs(count: int, shift: float, seed: int, unlabelled: int = 0) -> CellOutputs:
    """Two frames of each cell; the label moves one unit of the latent, and frames without label are far away."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(count) % 2, 2)
    latent = rng.normal(size=(2 * count, 5))
    latent[:, 3] += shift * label
    label[: 2 * unlabelled] = -1
    latent[: 2 * unlabelled, 3] = 100
    cell = np.repeat([f"c{i:03d}" for i in range(count)], 2)
    rows = pd.DataFrame({"batch": "a", "cell": cell, "cluster": 0, "label": label})
    return CellOutputs(rows, latent, np.zeros((2 * count, 1, 4, 4)))


def test_a_fresh_classifier_reads_what_the_latent_holds_and_no_more():
    assert fresh_auroc(outputs(80, 6.0, 0, unlabelled=4), outputs(60, 6.0, 1, unlabelled=4)) > 0.99
    assert abs(fresh_auroc(outputs(80, 0.0, 0), outputs(400, 0.0, 1)) - 0.5) < 0.1


def test_the_auroc_is_not_a_number_where_a_class_is_missing():
    other = outputs(20, 1.0, 1)
    other.rows["label"] = other.rows["label"].where(other.rows["label"] < 1, -1)
    assert np.isnan(fresh_auroc(outputs(20, 1.0, 0), other))
