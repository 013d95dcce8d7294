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
import pytest
from aec_samples import network, samples

from monai_armed.studies.cells.evaluation import evaluate_cells

BATCHES = ["a", "b"]


def test_another_labs_images_are_evaluated_without_a_training_cell(tmp_path, capsys):
    loaders = {"unseen": samples(["x"] * 4 + ["y"] * 4, list("12341234"), [-1] * 8)}
    figures = evaluate_cells(network(), loaders, BATCHES, tmp_path)
    assert "what the latents tell of the batch is not measured" in capsys.readouterr().out
    assert figures["unseen_fixed_mse"] > 0 and np.isfinite(figures["unseen_mixed_auroc"])
    assert not any(name.startswith("test_") for name in figures)
    table = pd.read_csv(tmp_path / "evaluated_predictions.csv")
    assert len(table) == 8 and not table["batch_known"].any()
    assert (tmp_path / "as_batches.png").is_file() and (tmp_path / "latents.png").is_file()
    with pytest.raises(ValueError, match=r"must have test or unseen cells to be evaluated, got \['train'\]"):
        evaluate_cells(network(), {"train": loaders["unseen"]}, BATCHES, tmp_path)


def test_new_cells_of_a_known_batch_alone_are_evaluated(tmp_path):
    loaders = {"test": samples(["a"] * 4, list("1234"), [0] * 4)}
    figures = evaluate_cells(network(), loaders, BATCHES, tmp_path)
    assert figures["test_mixed_mse"] > 0 and "effective_dimension" not in figures


def test_cells_numbered_anew_in_each_batch_count_by_themselves(tmp_path):
    batches, cells, clusters = ["a"] * 6 + ["b"] * 6, list("123456") * 2, [0] * 6 + [1] * 6
    own = [f"{batch}{cell}" for batch, cell in zip(batches, cells)]
    figures = []
    for names in (cells, own):
        loaders = {part: samples(batches, names, clusters) for part in ("train", "test")}
        figures.append(evaluate_cells(network(), loaders, BATCHES, tmp_path))
    assert figures[0] == pytest.approx(figures[1], nan_ok=True)
