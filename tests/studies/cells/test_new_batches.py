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

"""Phenotypes of cells of new batches have sets that are calibrated on unseen batches."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from aec_samples import network, samples

from monai_armed.metrics.calibration import Calibration
from monai_armed.metrics.calibration_file import read_calibrations
from monai_armed.metrics.prediction_sets import set_columns
from monai_armed.studies.cells.evaluation import evaluate_cells
from monai_armed.studies.cells.inference import write_cells
from monai_armed.studies.cells.new_batches import with_sets

BATCHES = ["a", "b"]
NEW = [f"new {i}" for i in range(11) for _ in range(4)]


def test_unseen_batches_calibrate_and_inference_uses_it(tmp_path):
    net, model = network(), tmp_path / "model.pt"
    torch.save(net.state_dict(), model)
    unseen = samples(NEW, list("1234") * 11, [-1] * 44)
    figures = evaluate_cells(net, {"unseen": unseen}, BATCHES, tmp_path, ckpt_path=model)
    table = pd.read_csv(tmp_path / "evaluated_predictions.csv")
    for prediction in ("mixed", "fixed", "randomized"):
        sets = table[f"{prediction}_prediction_set"]
        covered = np.mean([str(label) in words for label, words in zip(table["label"], sets)])
        assert figures[f"unseen_{prediction}_coverage"] == pytest.approx(covered)
        assert table[f"{prediction}_calibrated_probability"].between(0, 1).all()
    write_cells(net, unseen, BATCHES, tmp_path, as_batches=[], ckpt_path=model)
    new = pd.read_csv(tmp_path / "predictions.csv")
    pd.testing.assert_frame_equal(table, pd.read_csv(tmp_path / "evaluated_predictions.csv"))  # its own file
    calibration = read_calibrations(model)["mixed"]
    logits = torch.tensor(table["mixed"].tolist())[:, None]
    wanted = set_columns(calibration.probabilities(logits), calibration.sets(logits))
    assert new["prediction_set"].tolist() == wanted["prediction_set"]
    known = samples(["a"] * 4, list("1234"), [0] * 4)
    write_cells(net, known, BATCHES, tmp_path / "known", as_batches=[], ckpt_path=model)
    assert pd.read_csv(tmp_path / "known" / "predictions.csv")["prediction_set"].isna().all()


def test_of_few_batches_there_are_no_sets(tmp_path, capsys):
    unseen = samples(NEW[:20], list("1234") * 5, [-1] * 20)
    figures = evaluate_cells(network(), {"unseen": unseen}, BATCHES, tmp_path, ckpt_path="model.pt")
    assert "unseen_mixed_coverage" not in figures and not (tmp_path / "calibration.json").exists()
    assert "each unseen batch by all others: 5 held-out clusters are too few" in capsys.readouterr().out


def test_images_of_known_batches_or_unlike_the_training_data_have_no_set():
    table = pd.DataFrame({"batch_known": [True, False, False], "unlike_training": [False, False, True]})
    logits, label = torch.randn(60, 1), torch.arange(60) % 2
    found = with_sets(table, logits[:3], Calibration(logits, label, [i % 12 for i in range(60)]))
    assert found["prediction_set"].isna().tolist() == found["calibrated_probability"].isna().tolist()
    assert found["prediction_set"].isna().tolist() == [True, False, True]
    unmarked = with_sets(table[["batch_known"]], logits[:3], Calibration(logits, label, [i % 12 for i in range(60)]))
    assert unmarked["prediction_set"].isna().tolist() == [True, False, False]
