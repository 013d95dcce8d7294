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

import json

import pandas as pd
import pytest

from monai_armed.data.held_out import provenance
from monai_armed.studies.ad_mri import ad_mri_partitions
from monai_armed.studies.ad_mri import simulator as ad_mri_simulator


@pytest.fixture
def table(tmp_path):
    """A CSV of 40 subjects with two images each, at four seen sites and an unseen one."""
    rows = [
        {"image": f"{k}_{session}.nii.gz", "label": k % 2, "site": f"s{k % 5}", "subject": f"p{k}", "session": session}
        for k in range(40)
        for session in ("a", "b")
    ]
    for row in rows:
        row["site_role"] = "unseen" if row["site"] == "s4" else "seen"
        (tmp_path / row["image"]).touch()
    path = tmp_path / "study.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_partitions_of_a_csv(table):
    parts = ad_mri_partitions(table)
    assert parts["sites"] == ["s0", "s1", "s2", "s3"]
    assert {item["site"] for item in parts["unseen"]} == {"s4"} and len(parts["unseen"]) == 16
    subjects = [{item["subject"] for item in parts[name]} for name in ("train", "val", "test")]
    assert len(set.union(*subjects)) == 32 == sum(map(len, subjects))
    assert [len(parts[name]) / 64 for name in ("train", "val", "test")] == pytest.approx([0.7, 0.1, 0.2], abs=0.05)


def test_seen_sites_by_name_and_another_split(table):
    parts = ad_mri_partitions(table, seen_sites=["s4", "s1", "s2"])
    assert parts["sites"] == ["s1", "s2", "s4"] and len(parts["unseen"]) == 32
    first, second = ({i["subject"] for i in ad_mri_partitions(table, split_seed=s)["test"]} for s in (0, 1))
    assert first != second
    with pytest.raises(ValueError, match=r"no image of the seen sites \['s9'\]"):
        ad_mri_partitions(table, seen_sites=["s9"])


def test_a_trained_model_is_tested_on_what_it_was_not_trained_on(table, tmp_path):
    at_training = ad_mri_partitions(table, seen_sites=["s4", "s1", "s2"], split_seed=3)
    trained = provenance(at_training)
    assert ad_mri_partitions(table, split_seed=8, trained=trained) == at_training
    with pytest.raises(ValueError, match=r"was trained on \['s1', 's2', 's4'\], not on \['s0'\]"):
        ad_mri_partitions(table, seen_sites=["s0"], trained=trained)

    rows = pd.read_csv(table)
    test = {item["subject"] for item in at_training["test"]}
    rows[~rows["subject"].isin(test) & (rows["site"] != "s0")].to_csv(tmp_path / "less.csv", index=False)
    parts = ad_mri_partitions(tmp_path / "less.csv", trained=trained)
    assert not parts["test"] and {item["site"] for item in parts["unseen"]} == {"s3"}
    known = [subject for _, subject in trained["train"]]
    rows[rows["subject"].isin(known)].to_csv(tmp_path / "known.csv", index=False)
    with pytest.raises(ValueError, match=r"trained on the subject of every one of the .* images: none is left"):
        ad_mri_partitions(tmp_path / "known.csv", trained=trained)


def test_another_hospital_is_unseen_whatever_its_names(table, tmp_path):
    trained = json.loads(json.dumps(provenance(ad_mri_partitions(table))))
    other = tmp_path / "other" / "study.csv"
    other.parent.mkdir()
    for image in pd.read_csv(table)["image"]:  # the same relative names, subjects and sites
        (other.parent / image).write_text(f"another {image}")
    other.write_text(table.read_text())
    with pytest.warns(UserWarning, match=r"the subject of 5\d samples has the name of one"):
        parts = ad_mri_partitions(other, trained=trained)
    assert [len(parts[name]) for name in ("train", "val", "test", "unseen")] == [0, 0, 0, 80]
    assert parts["sites"] == ["s0", "s1", "s2", "s3"]  # the model's
    assert {item["site"] for item in parts["unseen"]} == {"s4", *(f"s{k} (not the model's)" for k in range(4))}
    parts = ad_mri_partitions(other, trained=trained, seen_sites=["s0", "s1", "s2", "s3"])
    assert len(parts["test"]) and not set(parts["unseen"][0]["site"]) & set("0123")


def test_words_and_columns_of_ones_own(table, tmp_path):
    rows = pd.read_csv(table).replace({"label": {0: "control", 1: "Patient"}})
    rows.loc[:3, "label"] = "MCI"
    names = {"label": "dx", "site": "centre", "subject": "who", "image": "file"}
    rows.rename(columns=names).to_csv(tmp_path / "own.csv", index=False)
    columns = {f"{column}_column": names[column] for column in ("site", "subject", "image")}
    columns["diagnosis_column"] = "dx"
    with pytest.warns(UserWarning, match=r"4 of 80 rows .* none of Control, patient: MCI \(4\)"):
        reading = {"diagnoses": {"Control": 0, "patient": 1}, **columns}
        parts = ad_mri_partitions(tmp_path / "own.csv", reading=reading)
    assert sum(len(parts[name]) for name in ("train", "val", "test", "unseen")) == 76
    with pytest.raises(ValueError, match=r"diagnoses must give 0 or 1 for each word, got {'b': 2}"):
        ad_mri_partitions(table, reading={"diagnoses": {"a": 1, "b": 2}})
    with pytest.raises(ValueError, match=r"image_column is 'file', but .* is no CSV file"):
        ad_mri_partitions(tmp_path, reading={"image_column": "file"})


def test_one_class_and_few_subjects_get_a_sentence(table, tmp_path):
    rows = pd.read_csv(table)
    for name, kept, message in (
        ("class", rows["label"] == 1, "all images have the label 1; a classifier needs"),
        ("few", rows["subject"].isin([f"p{k}" for k in range(11)]), "as many subjects, got 9: give more subjects"),
        ("unseen", rows["site"] == "s4", "no image is of a seen site"),
    ):
        rows[kept].to_csv(tmp_path / f"{name}.csv", index=False)
        with pytest.raises(ValueError, match=message):
            ad_mri_partitions(tmp_path / f"{name}.csv")


def test_a_hospital_may_have_one_site(table, tmp_path):
    pd.read_csv(table).assign(site="s1", site_role="seen").to_csv(tmp_path / "site.csv", index=False)
    assert ad_mri_partitions(tmp_path / "site.csv")["sites"] == ["s1"]


def test_the_study_is_simulated_first_if_a_scale_is_given(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(ad_mri_simulator, "simulate_ad_mri", lambda *args, **kwargs: calls.append((args, kwargs)))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        ad_mri_partitions(tmp_path / "data", simulated_scale=0.5, simulated_unseen_scale=0.1, simulation_seed=3)
    assert calls == [((tmp_path / "data", 0.5, 3), {"unseen_scale": 0.1})]
