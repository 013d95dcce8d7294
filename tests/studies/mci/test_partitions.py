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

"""Partitions of the MCI study: the features, the sites, the probes, and new subjects."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest

from monai_armed.data.held_out import provenance
from monai_armed.studies.mci.adnimerge import conversion_subjects, parse_adnimerge
from monai_armed.studies.mci.partitions import PROBES, confounded_probes, mci_ceiling, mci_partitions, read_new_subjects
from monai_armed.studies.mci.simulator import simulate_conversion
from monai_armed.transforms import EncodeRow


@pytest.fixture(scope="module")
def partitions():
    return mci_partitions(data_seed=2)


def encoder(partitions) -> EncodeRow:
    return EncodeRow.fit([item["image"] for item in partitions["train"]], partitions["features"])


def test_37_features_and_20_of_54_sites(partitions):
    assert len(encoder(partitions).names) == 37
    seen = [item for name in ("train", "val", "test") for item in partitions[name]]
    assert len(seen) == 392 and len(partitions["unseen"]) == 313 and len(partitions["sites"]) == 20
    assert len({item["subject"] for item in seen}) == 392
    assert {item["cluster"] for item in seen} == set(range(20)) and {d["cluster"] for d in partitions["unseen"]} == {-1}
    assert all(partitions["sites"][item["cluster"]] == item["site"] for item in seen)


def test_a_table_of_ones_own_gives_the_same(partitions, tmp_path):
    path = simulate_conversion(2).write(tmp_path)
    own = mci_partitions(path)
    assert own["truth"] is None and mci_ceiling(own) == {} and own["features"] == partitions["features"]
    assert [d["subject"] for d in own["test"]] == [d["subject"] for d in partitions["test"]]


def test_features_that_few_subjects_have_are_left_out(tmp_path):
    table = simulate_conversion(2).table.astype(str)
    few = table["RID"].isin(table["RID"].unique()[::2])
    table.loc[few, "FDG_bl"] = ""
    table["ICV_bl"] = ""
    table["PTGENDER"] = "Male"
    table.to_csv(tmp_path / "table.csv", index=False)
    features = mci_partitions(tmp_path / "table.csv")["features"]
    assert not {"FDG_bl", "ICV_bl", "PTGENDER"} & set(features) and "Hippocampus_bl" in features


def test_a_seen_site_with_one_subject_and_a_constant_feature_are_taken(tmp_path):
    table = simulate_conversion(2).table.astype(str)
    table["PTEDUCAT"] = "16"
    table.loc[table["RID"] == table["RID"].iloc[0], "SITE"] = "999"
    table.to_csv(tmp_path / "table.csv", index=False)
    partitions = mci_partitions(tmp_path / "table.csv", num_seen=1000)
    assert "999" in partitions["sites"] and not partitions["unseen"]
    encode = encoder(partitions)
    rows = np.stack([encode(item["image"]) for item in partitions["test"]])
    assert np.isfinite(rows).all() and not rows[:, encode.names.index("PTEDUCAT")].any()


def subjects_of(partitions):
    return {name: {d["subject"] for d in partitions[name]} for name in ("train", "val", "test", "unseen")}


def test_sites_that_differ_in_leading_zeros_only_are_no_two_sites(partitions, tmp_path):
    table = simulate_conversion(2).table.astype(str)
    table.loc[table["RID"] == table["RID"].iloc[0], "SITE"] = "0" + table["SITE"].iloc[0]
    table.to_csv(tmp_path / "table.csv", index=False)
    with pytest.warns(UserWarning, match="writes 1 names of a SITE in more than one way .* taken as one"):
        read = mci_partitions(tmp_path / "table.csv")
    assert read["sites"] == partitions["sites"] and subjects_of(read) == subjects_of(partitions)


def test_a_trained_model_is_tested_on_what_it_was_not_trained_on(partitions, tmp_path):
    trained = json.loads(json.dumps(provenance(partitions)))
    assert trained["study"] == "simulated draw 2"
    again = mci_partitions(data_seed=2, split_seed=5, num_seen=7, trained=trained)
    assert subjects_of(again) == subjects_of(partitions) and again["sites"] == partitions["sites"]
    assert all(again["sites"][item["cluster"]] == item["site"] for item in again["test"])
    with pytest.warns(UserWarning, match="the subject of .* samples has the name of one"):
        other = mci_partitions(data_seed=3, trained=trained)  # PTIDs and sites of other draws are the same
    assert not other["train"] and not other["test"] and len(other["unseen"]) == 705
    assert {item["cluster"] for item in other["unseen"]} == {-1}


def test_a_table_that_has_grown_is_known_again(tmp_path):
    table = simulate_conversion(2).table.astype(str)
    first = table["RID"].isin(table["RID"].unique()[:600])
    table[first].to_csv(tmp_path / "2024.csv", index=False)
    table.assign(SITE=table["SITE"] + ".0").to_csv(tmp_path / "2025.csv", index=False)
    at_training = mci_partitions(tmp_path / "2024.csv", probes=True)  # whose noise is another with more subjects
    trained = provenance(at_training)
    grown = subjects_of(mci_partitions(tmp_path / "2025.csv", probes=True, trained=trained))
    old = subjects_of(at_training)
    assert grown["train"] == old["train"] and grown["val"] == old["val"]
    assert grown["test"] > old["test"] and sum(map(len, grown.values())) == 705


def test_the_seen_sites_can_be_named(partitions):
    named = mci_partitions(data_seed=2, seen_sites=partitions["sites"][:3])
    assert named["sites"] == partitions["sites"][:3]
    assert len(mci_partitions(data_seed=2, num_seen=1)["sites"]) == 1  # a hospital's, among others
    with pytest.raises(ValueError, match=r"no image of the seen sites .'nowhere'."):
        mci_partitions(data_seed=2, seen_sites=["nowhere"])


def test_the_ceiling_is_that_of_the_truth(partitions):
    ceiling = mci_ceiling(partitions)
    assert (
        set(ceiling) == {"auroc", "balanced_accuracy", "sensitivity", "specificity"} and 0.8 < ceiling["auroc"] < 0.95
    )


def test_probes_are_functions_of_the_sites_share_of_converters():
    subjects = conversion_subjects(parse_adnimerge(simulate_conversion(2).table.astype(str), "t"))
    label = subjects["label"].where(subjects["site"] != subjects["site"].iloc[0], 0)  # a site without converters
    probes = confounded_probes(label, subjects["site"], seed=1)
    rho = label.groupby(subjects["site"]).transform("mean")
    size = label.groupby(subjects["site"]).transform("size")
    expected = {"X1": rho, "X2": rho**2, "X3": 1 / np.maximum(rho, 0.5 / size), "X4": np.cos(rho), "X5": np.sin(rho)}
    for name, values in expected.items():
        noise = probes[name] - values
        assert noise.std() == pytest.approx(0.05, abs=0.005) and abs(noise.mean()) < 0.01
    assert np.isfinite(probes).all(axis=None)
    names = encoder(mci_partitions(data_seed=2, probes=True)).names
    assert set(PROBES) < set(names) and len(names) == 42


def test_new_subjects(partitions, tmp_path):
    encode, table = encoder(partitions), simulate_conversion(2).table.astype(str)
    chosen = table[table["VISCODE"] == "bl"].iloc[:5].copy()
    chosen.iloc[0, chosen.columns.get_loc("SITE")] = "nowhere"
    chosen.iloc[1, chosen.columns.get_loc("SITE")] = partitions["sites"][3]
    chosen.assign(label=["1", "0", "0", "1", "0"]).to_csv(tmp_path / "new.csv", index=False)
    items = read_new_subjects(tmp_path / "new.csv", encode, partitions["sites"], labelled=True)
    assert [d["subject"] for d in items] == chosen["PTID"].tolist() and [d["label"] for d in items] == [1, 0, 0, 1, 0]
    assert items[0]["cluster"] == -1 and items[1]["cluster"] == 3
    known = {d["subject"]: d for name in ("train", "val", "test", "unseen") for d in partitions[name]}
    for item in items:
        assert np.array_equal(encode(item["image"]), encode(known[item["subject"]]["image"]))
    chosen.drop(columns=["SITE", "VISCODE"]).to_csv(tmp_path / "plain.csv", index=False)
    assert {d["cluster"] for d in read_new_subjects(tmp_path / "plain.csv", encode, partitions["sites"])} == {-1}
    as_float = chosen.assign(SITE=[f"{site}.0" if site.isdigit() else site for site in chosen["SITE"]])
    as_float.to_csv(tmp_path / "float.csv", index=False)  # as pandas writes the sites where one is missing
    read = read_new_subjects(tmp_path / "float.csv", encode, partitions["sites"])
    assert [d["cluster"] for d in read] == [d["cluster"] for d in items] and {d["label"] for d in read} == {-1}
    for site in (f"0{partitions['sites'][3]}", f"{partitions['sites'][3]}.0"):
        chosen.assign(SITE=site).to_csv(tmp_path / "site.csv", index=False)
        (item, *_) = read_new_subjects(tmp_path / "site.csv", encode, partitions["sites"])
        assert (item["cluster"], item["site"]) == (3, partitions["sites"][3])
    for broken, message in (
        (chosen, "no column 'label'"),
        (chosen.drop(columns="CDRSB_bl"), r"lacks the columns \['CDRSB_bl'\]"),
        (pd.concat([chosen, chosen]).assign(AGE=range(10), label="1"), "twice"),
        (chosen.assign(label="yes"), "labels"),
        (chosen.assign(AGE="old"), "no number"),
        (chosen.assign(VISCODE="m24", label="1"), r"has no baseline visit \(VISCODE bl\)"),
    ):
        broken.to_csv(tmp_path / "broken.csv", index=False)
        with pytest.raises(ValueError, match=message):
            read_new_subjects(tmp_path / "broken.csv", encode, partitions["sites"], labelled=True)


def test_new_subjects_of_whom_nothing_is_known_and_new_words_are_counted(partitions, tmp_path):
    encode, table = encoder(partitions), simulate_conversion(2).table.astype(str)
    chosen = table[table["VISCODE"] == "bl"].iloc[:5].copy()
    chosen.to_csv(tmp_path / "new.csv", index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_new_subjects(tmp_path / "new.csv", encode, partitions["sites"])
    chosen.assign(PTGENDER=["Divers", *chosen["PTGENDER"][1:]]).to_csv(tmp_path / "new.csv", index=False)
    with pytest.warns(UserWarning, match=r"words in PTGENDER .* not trained on: Divers \(1\); it knows Female, Male"):
        read_new_subjects(tmp_path / "new.csv", encode, partitions["sites"])
    features = [column["column"] for column in encode.columns]
    chosen.loc[chosen.index[1], features] = ""
    chosen.to_csv(tmp_path / "new.csv", index=False)
    name = chosen["PTID"].iloc[1]
    with pytest.warns(UserWarning, match=rf"1 of 5 subjects of whom every feature of the model is missing .*{name}"):
        read_new_subjects(tmp_path / "new.csv", encode, partitions["sites"])
