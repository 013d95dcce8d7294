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

"""MCI conversion: tables as other people have them, settings, and a trained model on other tables."""

from __future__ import annotations

import re

import pandas as pd

from .case import Outcome, either, goes_on, same_as_good, says, table, told
from .mci_edits import (
    at_follow_up,
    content,
    emptied,
    folder,
    labels,
    mean_of,
    some,
    values,
    visits,
)
from .weights import DAMAGED_RECORD, DAMAGED_WEIGHTS, recorded, resumed, trained, without

TRAIN = table(
    "mci/train",
    ("good", "the table as it is", goes_on(mean_of("AGE", 60, 90))),
    ("no-file", "table does not exist", says("there is no table"), {"dataset_dir": "<folder>/none.csv"}),
    ("folder", "a folder as table", says("table|folder"), folder("ADNIMERGE.csv")),
    ("empty", "a table of 0 bytes", says(r"ADNIMERGE\.csv"), content(lambda given: b"")),
    ("head-alone", "a table without rows", says("no rows"), visits(lambda given: given[:0])),
    (
        "binary",
        "a spreadsheet as CSV",
        says(r"ADNIMERGE\.csv"),
        content(lambda given: b"PK\x03\x04" + bytes(range(256))),
    ),
    ("one-column", "semicolons", goes_on(trained), content(lambda given: given.replace(b",", b";"))),
    ("utf-16", "UTF-16", goes_on(trained), content(lambda given: given.decode().encode("utf-16"))),
    (
        "latin-1",
        "latin-1 in an unused column",
        goes_on(trained),
        content(lambda c: c.replace(b"Married", b"Mari\xe9e")),
    ),
    ("cut", "table cut in a row", says(r"ADNIMERGE\.csv|line|row"), content(lambda c: c[: len(c) // 2] + b',"')),
    *(
        (f"no-{name}", f"no column {name}", says(name), visits(lambda given, name=name: given.drop(columns=name)))
        for name in ("PTID", "SITE", "DX_bl", "VISCODE", "DX", "RID")
    ),
    (
        "no-feature",
        "a feature is missing",
        either("AGE", told("AGE", trained)),
        visits(lambda given: given.drop(columns="AGE")),
    ),
    ("text", "text as a number", says("AGE.*line"), values("AGE", some("old"))),
    ("decimal-comma", "decimal commas", says("AGE|comma"), values("AGE", lambda ages: ages.str.replace(".", ","))),
    ("infinite", "an infinite number", says("AGE"), values("AGE", some("inf"))),
    ("-4", "-4 where missing", either("AGE.*-4", mean_of("AGE", 60, 90)), values("AGE", some("-4"))),
    (
        "-1",
        "-1 where missing",
        either("Hippocampus_bl.*-1", mean_of("Hippocampus_bl", 6000, 8000)),
        values("Hippocampus_bl", some("-1", 7)),
    ),
    ("999", "age 999", either("999 as AGE", mean_of("AGE", 60, 90)), values("AGE", some("999"))),
    ("twice", "each row twice", goes_on(trained), visits(lambda given: pd.concat([given, given]))),
    (
        "contradiction",
        "a visit twice, with two ages",
        says("twice"),
        visits(lambda g: pd.concat([g, g[:1].assign(AGE="55")])),
    ),
    (
        "blank-visits",
        "no site in visits that are not used",
        goes_on(trained),
        visits(lambda g: g.assign(SITE=g["SITE"].where(g["VISCODE"] != "m12", ""))),
    ),
    ("no-sites", "a subject without site", says("SITE"), values("SITE", some("", 30))),
    ("floats", "sites as 31.0", goes_on(trained), values("SITE", lambda sites: sites + ".0")),
    (
        "zeros",
        "sites 31 and 031",
        goes_on(told("031", trained)),
        values("SITE", lambda s: s.where([i % 60 > 2 for i in range(len(s))], "0" + s)),
    ),
    ("one-site", "all of one site", says("only seen cluster"), values("SITE", lambda sites: "31")),
    ("few", "12 subjects", says("few|subjects"), visits(lambda given: given[:36])),
    ("no-follow-up", "no visit at 24 months", says("m24"), visits(lambda given: given[given["VISCODE"] != "m24"])),
    ("all-stable", "nobody converts", says("label"), at_follow_up(lambda dx: dx.where(dx == "x", "MCI"))),
    ("no-mci", "nobody has MCI at baseline", says("DX_bl|baseline"), values("DX_bl", lambda dx: "CN")),
    ("null", "dataset_dir null: the simulation", goes_on(trained), {"dataset_dir": "null"}),
)

SETTINGS = table(
    "mci/train",
    *(
        (f"{name}={value}", f"{name} {value}", wanted, {name: value})
        for name, value, wanted in [
            ("num_seen", 0, says("num_seen|seen")),
            ("num_seen", -3, says("num_seen|seen")),
            ("num_seen", "many", says("num_seen")),
            ("num_seen", 1, says("num_seen|site|few")),
            ("num_seen", 1000, goes_on(trained)),
            ("probes", "maybe", says("probes")),
            ("slope_scale", -1, says("scale")),
            ("slope_scale", 0, says("scale")),
            ("hidden_chanels", "[4]", says("hidden_chanels.*hidden_channels")),
            ("max_epochs", 0, says("max_epochs")),
            ("batch_size", 100000, says("batch_size")),
            ("lambda_adversary", -1, says("lambda_adversary")),
            ("learning_rate", 1e30, says("NaN|diverge|finite")),
            ("device", "cuda", says("cuda")),
        ]
    ),
)

MISSING = ("NA", "n/a", "nan", "")
EVALUATE = table(
    "mci/evaluate",
    ("good", "table and model of the training", goes_on(labels({"Dementia": 1, "MCI": 0}))),
    *(
        (
            f"dx-{word or 'empty'}",
            f"no diagnosis, written {word!r}",
            goes_on(labels({word: None, "MCI": 0})),
            at_follow_up(some(word)),
        )
        for word in MISSING
    ),
    (
        "transitions",
        "'MCI to Dementia', as older releases write it",
        either("MCI to Dementia", labels({"MCI to Dementia": 1})),
        at_follow_up(lambda dx: dx.replace("Dementia", "MCI to Dementia")),
    ),
    (
        "lower-case",
        "'dementia'",
        either("dementia", labels({"dementia": 1})),
        at_follow_up(lambda dx: dx.str.replace("D", "d")),
    ),
    (
        "ad",
        "'AD' for dementia",
        either("'AD'", labels({"AD": 1})),
        at_follow_up(lambda dx: dx.replace("Dementia", "AD")),
    ),
    ("unknown-word", "a word that is no diagnosis", says("Demented"), at_follow_up(some("Demented"))),
    (
        "codes",
        "diagnoses as numbers",
        says("'?[123]'?"),
        at_follow_up(lambda dx: dx.replace({"MCI": "2", "Dementia": "3"})),
    ),
    ("other-split", "another split: trained subjects stay out", either("trained", same_as_good), {"seed": 3}),
    (
        "other-draw",
        "another draw of the simulation",
        goes_on(told(", 705 are unseen")),
        {"dataset_dir": None, "data_seed": 4},
    ),
    ("other-sites", "sites of other names", goes_on(told("unseen")), values("SITE", lambda sites: "X" + sites)),
    ("no-features", "a record without features", says("features"), recorded(without("features"))),
    ("null-features", "features that are null", says("features"), recorded(lambda r: {**r, "features": None})),
    (
        "fewer-features",
        "a record that lacks a feature",
        says("feature|another"),
        recorded(lambda r: {**r, "features": r["features"][1:]}),
    ),
    (
        "other-features",
        "features that are a list of numbers",
        says("features"),
        recorded(lambda r: {**r, "features": [1, 2]}),
    ),
    *DAMAGED_WEIGHTS,
)


def predictions(outcome: Outcome) -> None:
    """As many predictions as subjects, all of them probabilities."""
    given = pd.read_csv(outcome.place.data / "ADNIMERGE.csv", dtype=str, encoding_errors="replace")
    found = pd.read_csv(outcome.place.out / "predictions.csv")
    assert set(found["subject"]) == set(given["PTID"]), f"{len(found)} predictions, {given['PTID'].nunique()} subjects"
    assert found["probability"].between(0, 1).all(), "a probability is no number from 0 to 1"


def unknown_site(outcome: Outcome) -> None:
    """Predictions for a site that is new are those of the population."""
    predictions(outcome)
    found = pd.read_csv(outcome.place.out / "predictions.csv")
    assert not re.search("nan", " ".join(map(str, found["probability"]))), "probabilities are NaN"


INFERENCE = table(
    "mci/inference",
    ("good", "visits of the training", goes_on(predictions)),
    ("no-feature", "a feature of the model is missing", says("AGE"), visits(lambda given: given.drop(columns="AGE"))),
    ("no-ptid", "no column PTID", says("PTID"), visits(lambda given: given.drop(columns="PTID"))),
    ("twice", "a row twice", goes_on(told("repeat", predictions)), visits(lambda g: pd.concat([g, g[:1]]))),
    ("two-rows", "a subject twice", says("twice"), visits(lambda g: pd.concat([g, g[:1].assign(AGE="55")]))),
    ("no-baseline", "no baseline visits", says("bl"), visits(lambda given: given[given["VISCODE"] != "bl"])),
    ("new-site", "a site that the model does not know", goes_on(unknown_site), values("SITE", lambda sites: "new")),
    ("zeros", "sites with a zero before", goes_on(predictions), values("SITE", lambda sites: "0" + sites)),
    ("text", "text as a number", says("MMSE_bl"), values("MMSE_bl", some("good"))),
    (
        "empty-rows",
        "nothing is known of a subject",
        either("feature|empty", told("feature|nothing|missing")),
        visits(emptied),
    ),
    (
        "new-word",
        "a category that the model does not know",
        either("Divers", told("Divers")),
        values("PTGENDER", some("Divers")),
    ),
    ("head-alone", "a table without rows", says("no rows"), visits(lambda given: given[:0])),
    ("mark", "UTF-8 with a mark", goes_on(predictions), content(lambda given: b"\xef\xbb\xbf" + given)),
    *DAMAGED_RECORD,
    ("other-model", "weights of the conventional network", says("another"), {"ckpt_path": "<other>/model.pt"}),
)

RESUME = table("mci/resume", *resumed({"hidden_channels": "[8]"}, visits(lambda given: given[:-3])))

CASES = [*TRAIN, *SETTINGS, *EVALUATE, *INFERENCE, *RESUME]
