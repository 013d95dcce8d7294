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

import pandas as pd
import pytest

from monai_armed.bundle import provenance
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
    trained = provenance(at_training, at_training["sites"])
    assert ad_mri_partitions(table, split_seed=8, trained=trained) == at_training
    with pytest.raises(ValueError, match=r"was trained on \['s1', 's2', 's4'\], not on \['s0'\]"):
        ad_mri_partitions(table, seen_sites=["s0"], trained=trained)

    rows = pd.read_csv(table)
    test = {item["subject"] for item in at_training["test"]}
    rows[~rows["subject"].isin(test) & (rows["site"] != "s0")].to_csv(tmp_path / "less.csv", index=False)
    parts = ad_mri_partitions(tmp_path / "less.csv", trained=trained)
    assert not parts["test"] and {item["site"] for item in parts["unseen"]} == {"s3"}
    rows[rows["subject"].isin(trained["train"])].to_csv(tmp_path / "known.csv", index=False)
    with pytest.raises(ValueError, match=r"trained on the subject of every one of the .* images: none is left"):
        ad_mri_partitions(tmp_path / "known.csv", trained=trained)


def test_a_record_of_another_draw_does_not_count(table):
    parts = ad_mri_partitions(table)
    trained = provenance(parts | {"study": "simulated draw 1"}, parts["sites"])
    assert ad_mri_partitions(table, trained=trained) == parts


def test_the_study_is_simulated_first_if_a_scale_is_given(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(ad_mri_simulator, "simulate_ad_mri", lambda *args, **kwargs: calls.append((args, kwargs)))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        ad_mri_partitions(tmp_path / "data", simulated_scale=0.5, simulated_unseen_scale=0.1, simulation_seed=3)
    assert calls == [((tmp_path / "data", 0.5, 3), {"unseen_scale": 0.1})]
