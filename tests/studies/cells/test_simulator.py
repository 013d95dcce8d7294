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

import hashlib
import json
import shutil
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from monai_armed.studies.cells import METASTATIC_EFFICIENCY, cell_partitions, read_cells
from monai_armed.studies.cells import simulator as cell_simulator
from monai_armed.studies.cells.ceilings import cell_ceilings
from monai_armed.studies.cells.cohort import draw_batches, draw_cells
from monai_armed.studies.cells.simulator import SimulatedCells, simulate_cells

SMALL = {"size": 32, "frames": 2, "cells_per_batch": 3, "unseen_cells_per_batch": 1, "seed": 3, "progress": False}


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return simulate_cells(tmp_path_factory.mktemp("small"), **SMALL)


@pytest.fixture(scope="module")
def cohort():
    """Cells of three full draws, as a table."""
    rows = [
        {
            "batch": (seed, cell.batch),
            "seen": cell.seen,
            "pdx": cell.pdx,
            "label": cell.label,
            "granules": cell.shape.brightness,
            "pseudopodia": len(cell.shape.pseudopodia),
            "radius": np.sqrt(cell.shape.semi_axes.prod()),
            "elongation": cell.shape.semi_axes[0] / cell.shape.semi_axes[1],
            "others": len(cell.others),
        }
        for seed in range(3)
        for cell in draw_cells(seed, 40, 20)
    ]
    return pd.DataFrame(rows)


def test_batches_and_their_classes(cohort):
    per_batch = cohort.groupby("batch").agg(seen=("seen", "first"), cells=("label", "size"), high=("label", "mean"))
    assert per_batch.groupby("seen").size().to_dict() == {False: 33, True: 39}
    assert per_batch.groupby("seen")["cells"].unique().map(list).to_dict() == {False: [20], True: [40]}
    seen = per_batch[per_batch["seen"]]["high"]
    assert seen.between(0, 1, inclusive="neither").all()  # each class in each seen batch
    assert seen.std() == pytest.approx(0.25, abs=0.07)  # of Beta(1.5, 1.5)
    assert not per_batch["high"].between(0, 1, inclusive="neither").all()  # an unseen one may have a single class
    assert cohort.groupby("batch")["pdx"].nunique().max() <= 4
    assert (cohort["pdx"].map(METASTATIC_EFFICIENCY) == cohort["label"]).all()
    assert set(cohort["pdx"]) == set(METASTATIC_EFFICIENCY)


def test_phenotypes_differ_in_granules_and_pseudopodia_alone(cohort):
    low, high = (cohort[cohort["label"] == label] for label in (0, 1))
    assert low["granules"].mean() == pytest.approx(0.25, abs=0.01)
    assert high["granules"].mean() == pytest.approx(0.35, abs=0.01)
    assert [part["granules"].std() for part in (low, high)] == pytest.approx([0.08, 0.08], abs=0.006)
    assert low["pseudopodia"].mean() == pytest.approx(0.6, abs=0.08)
    assert high["pseudopodia"].mean() == pytest.approx(1.4, abs=0.12)
    assert np.log(cohort["radius"]).mean() == pytest.approx(np.log(34), abs=0.1)  # PDXs have sizes of their own
    assert np.log(cohort["radius"]).std() == pytest.approx(np.hypot(0.27, 0.1), abs=0.05)
    assert low["elongation"].median() == pytest.approx(high["elongation"].median(), abs=0.15)
    assert (cohort["elongation"] > 1.35).mean() == pytest.approx(0.30, abs=0.08)
    assert (cohort["others"] > 0).mean() == pytest.approx(0.2, abs=0.03)


def test_batch_parameters_fill_their_ranges():
    batches = pd.DataFrame([vars(batch) for seed in range(20) for batch in draw_batches(seed).values()])
    for name, low, high in (
        ("background", 0.03, 0.12),
        ("gradient", 0, 0.03),
        ("texture", 0.006, 0.018),
        ("noise", 0.002, 0.010),
        ("halo", 0.035, 0.125),
        ("blur", 0.6, 1.8),
    ):
        assert batches[name].between(low, high).all()
        standard_error = (high - low) / np.sqrt(12 * len(batches))
        assert batches[name].mean() == pytest.approx((low + high) / 2, abs=3 * standard_error)
    assert batches["contrast"].between(0.5, 1.5).all()
    assert batches["contrast"].mean() == pytest.approx(1, abs=0.03)
    assert batches["highlight"].mean() == pytest.approx(0.15, abs=0.02)
    assert draw_batches(0) == draw_batches(0) != draw_batches(1)


def test_folder_is_read_and_partitioned_by_cell(small):
    datalist = read_cells(small)
    assert len(datalist) == 2 * (13 * 3 + 11)
    assert {item["label"] for item in datalist} == {0, 1}
    parts = cell_partitions(small)
    assert len(parts["batches"]) == 13 and len({item["batch"] for item in parts["unseen"]}) == 11
    cells = [{item["cell"] for item in parts[name]} for name in ("train", "val", "test", "unseen")]
    assert len(set.union(*cells)) == sum(map(len, cells)) == 13 * 3 + 11
    assert all(len(parts[name]) == 2 * len(own) for name, own in zip(("train", "val", "test"), cells))


def test_file_names_say_the_same_as_the_table(small, tmp_path):
    for image in small.glob("*.png"):
        shutil.copy(image, tmp_path)
    keys = ("batch", "pdx", "cell", "frame", "label")
    by_table, by_name = ([tuple(item[key] for key in keys) for item in read_cells(p)] for p in (small, tmp_path))
    assert by_table == by_name


def test_images_and_truth_are_what_is_rendered_again(small):
    study = SimulatedCells(small)
    for row in study.table.iloc[::17].itertuples():
        for path, batch in ((small / row.file, row.batch), (small / "truth" / "batch_free" / row.file, None)):
            stored = np.asarray(Image.open(path))
            assert stored.dtype == np.uint8 and stored.shape == (32, 32)
            np.testing.assert_allclose(stored / 255, study.render_as(row.file, batch), atol=0.5 / 255 + 1e-9)
    truth = pd.read_csv(small / "truth" / "cells.csv", dtype={"batch": str})
    pd.testing.assert_frame_equal(truth, study.cell_truth, check_dtype=False)
    assert "SIMULATED" in (small / "README.md").read_text()


def test_as_another_batch_keeps_the_cell_and_takes_the_batch(small):
    study = SimulatedCells(small)
    file, own = study.table.loc[0, ["file", "batch"]]
    darkest, brightest = (f(study.batches, key=lambda name: study.batches[name].background) for f in (min, max))
    corner = {b: study.render_as(file, b, noise=False)[:4, :4].mean() for b in (darkest, brightest)}
    gain = study.batches[brightest].background - study.batches[darkest].background
    assert corner[brightest] - corner[darkest] == pytest.approx(gain, abs=0.03)  # and half of both gradients
    free = study.render_as(file, None)
    for batch in study.batches:
        assert np.corrcoef(study.render_as(file, batch).ravel(), free.ravel())[0, 1] > 0.85
    with pytest.raises(ValueError, match="no batch '999999'"):
        study.render_as(file, "999999")
    with pytest.raises(ValueError, match=r"no image 'x\.png'"):
        study.render_as("x.png", own)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        SimulatedCells(small / "truth")


def test_frames_of_a_cell_are_alike_but_not_equal(small):
    study = SimulatedCells(small)
    first = study.table.groupby("cell")["file"].apply(list)
    images = [[study.render_as(file, None) for file in files] for files in first]
    same = [np.abs(a - b).mean() for a, b in images]
    other = [np.abs(a[0] - b[0]).mean() for a, b in pairwise(images)]
    assert 0 < min(same) and np.mean(same) < 0.5 * np.mean(other)


@pytest.mark.slow
def test_four_corner_pixels_do_not_name_the_batch(tmp_path, monkeypatch):
    """They would, were it not for the background that varies within a batch."""

    def accuracy(folder):
        simulate_cells(folder, size=32, frames=1, cells_per_batch=20, unseen_cells_per_batch=1, progress=False)
        parts = cell_partitions(folder)
        sets = []
        for name in ("train", "test"):
            images = [np.asarray(Image.open(item["image"]), dtype=float) for item in parts[name]]
            corners = np.array([image[[0, 0, -1, -1], [0, -1, 0, -1]] for image in images])
            sets += [corners, [item["batch"] for item in parts[name]]]
        probe = KNeighborsClassifier(7).fit(*sets[:2])
        return balanced_accuracy_score(sets[3], probe.predict(sets[2]))

    with_variation = accuracy(tmp_path / "as_defined")
    monkeypatch.setattr("monai_armed.studies.cells.physics.BACKGROUND_SD", 0.0)
    without = accuracy(tmp_path / "fixed_background")
    assert with_variation < 0.4 and with_variation < without - 0.1


def test_same_seed_same_files_and_another_seed_others(small, tmp_path):
    assert digests(simulate_cells(tmp_path / "again", **SMALL)) == digests(small)
    other = simulate_cells(tmp_path / "other", **{**SMALL, "seed": 4})
    assert not set(digests(other).values()) & {d for p, d in digests(small).items() if p.endswith(".png")}


def test_resumes_after_an_interruption_and_leaves_a_complete_folder_alone(small, tmp_path, monkeypatch):
    folder, write, calls = tmp_path / "interrupted", cell_simulator.write_bytes, []

    def killed_at_the_tenth(path, content):
        calls.append(path)
        if len(calls) == 10:
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(cell_simulator, "write_bytes", killed_at_the_tenth)
    with pytest.raises(KeyboardInterrupt):
        simulate_cells(folder, **SMALL)
    done = len(list(folder.glob("*.png")))
    assert 0 < done < 10
    monkeypatch.setattr(cell_simulator, "write_bytes", lambda path, content: calls.append(path) or write(path, content))
    calls.clear()
    simulate_cells(folder, **SMALL)
    assert len([path for path in calls if path.parent == folder and path.suffix == ".png"]) == 100 - done
    assert digests(folder) == digests(small)
    calls.clear()
    simulate_cells(folder, **SMALL)
    assert not calls


def test_other_parameters_or_other_images_in_the_folder_are_refused(small, tmp_path):
    with pytest.raises(ValueError, match=r"'size': 32.*give another folder"):
        simulate_cells(small, **{**SMALL, "size": 64})
    (tmp_path / "mine.png").touch()
    with pytest.raises(ValueError, match="did not write"):
        simulate_cells(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]


@pytest.mark.parametrize("name", ["size", "frames", "cells_per_batch", "unseen_cells_per_batch"])
def test_numbers_too_small(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name} of the simulated cells must be at least"):
        simulate_cells(tmp_path / "none", **{**SMALL, name: 0})
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_ceilings_of_full_draws_are_as_designed(tmp_path, monkeypatch):
    """Means over three draws against the definition's .81, .70, .85 and .91; the images play no part."""
    monkeypatch.setattr(cell_simulator, "_png", lambda image: b"")
    monkeypatch.setattr(SimulatedCells, "render_as", lambda *_: None)
    draws = [simulate_cells(tmp_path / str(seed), frames=1, seed=seed, progress=False) for seed in range(3)]
    ceilings = pd.DataFrame([json.loads((folder / "truth" / "ceilings.json").read_text()) for folder in draws])
    mean = ceilings.mean()
    assert mean["seen/granules"] == pytest.approx(0.81, abs=0.03)
    assert mean["seen/pseudopodia"] == pytest.approx(0.70, abs=0.04)
    assert mean["seen/both"] == pytest.approx(0.85, abs=0.03)
    assert mean["seen/both_batch"] == pytest.approx(0.91, abs=0.04)
    assert mean["unseen/both"] == pytest.approx(0.85, abs=0.06)


def test_ceilings_need_a_truth(tmp_path):
    with pytest.raises(FileNotFoundError, match="simulate_cells"):
        cell_ceilings(tmp_path)
