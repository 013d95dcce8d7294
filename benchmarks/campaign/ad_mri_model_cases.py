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

"""AD from MRI: a trained model evaluated on other data, asked for predictions, resumed, and damaged."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from .ad_mri_edits import (
    another_hospital,
    apple_double,
    beside,
    file,
    header,
    metres,
    no_codes,
    renamed,
    rows,
    unpacked,
    volume,
)
from .case import Outcome, either, goes_on, reports, same_as_good, says, table, told
from .weights import DAMAGED_RECORD, DAMAGED_WEIGHTS, resumed


def rows_of(**partitions: int) -> Callable[[Outcome], None]:
    """As many images of each partition in evaluated_predictions.csv, and of no other."""

    def check(outcome: Outcome) -> None:
        predictions = pd.read_csv(outcome.place.out / "evaluated_predictions.csv", dtype={"site": str})
        mixed = predictions[predictions["prediction"] == predictions["prediction"].iloc[0]]
        found = mixed["partition"].value_counts().to_dict()
        assert found == partitions, f"images by partition: {found}, right is {partitions}"
        assert predictions["score"].notna().all(), "scores are NaN"

    return check


EVALUATE = table(
    "ad_mri/evaluate",
    ("good", "data and model of the training", goes_on(same_as_good)),
    ("unknown-policy", "a policy that is none", says("unknown"), {"unknown_sites": "guess"}),
    ("other-split", "another split: trained subjects stay out", goes_on(same_as_good), {"seed": 3}),
    ("hospital", "another hospital", goes_on(rows_of(unseen=40)), another_hospital),
    ("renamed", "volumes of the training under other names", goes_on(rows_of(unseen=14)), renamed),  # 26 were used
    ("moved", "the data of the training in another folder", goes_on(same_as_good), lambda place: place.data),
    *DAMAGED_WEIGHTS,
)

BESIDE = 39  # the other images


def predictions(count: int) -> Callable[[Outcome], None]:
    """As many predictions, all of them probabilities."""

    def check(outcome: Outcome) -> None:
        found = pd.read_csv(outcome.place.out / "predictions.csv")
        assert len(found) == count, f"{len(found)} predictions, {count} images"
        assert found["probability"].between(0, 1).all(), "a probability is no number from 0 to 1"

    return check


INFERENCE = table(
    "ad_mri/inference",
    ("good", "a tree", goes_on(predictions(40))),
    ("no-file", "no such file", says("no file or folder"), {"dataset_dir": "<folder>/none.nii.gz"}),
    ("no-image", "a folder without volumes", says("no NIfTI"), {"dataset_dir": "<folder>"}),
    ("null", "dataset_dir null", says("dataset_dir|no file or folder"), {"dataset_dir": "null"}),
    ("no-such-site", "a site that the model does not know", says("nosuch"), {"site": "nosuch"}),
    ("site-2", "site 2, another spelling of 002", goes_on(predictions(40)), {"site": "2"}),
    ("site", "a known site", goes_on(predictions(40)), {"site": "002"}),
    (
        "one-cut",
        "one volume of 40 cut short",
        reports("1 of 40|sub-", predictions(BESIDE)),
        file(lambda f: f.write_bytes(b"no")),
    ),
    (
        "one-nan",
        "one volume of 40 with NaN",
        reports("1 of 40|sub-", predictions(BESIDE)),
        volume(lambda v: np.where(v > 200, np.nan, v)),
    ),
    ("part", "an unfinished download", goes_on(predictions(40)), beside("x_T1w.nii.gz.part", "x_T1w.nii.json")),
    ("folder-nii", "a folder named x.nii", goes_on(predictions(40)), lambda p: (p.data / "x.nii").mkdir()),
    ("apple-double", "._ files of macOS", goes_on(predictions(40)), apple_double),
    ("twice-packed", "a scan as .nii and .nii.gz", either(r"\.nii", predictions(40)), unpacked),
    (
        "noise",
        "nothing but noise",
        goes_on(told("far from|unlike|not like|distance")),
        volume(lambda v: np.random.default_rng(0).normal(100, 40, v.shape), every=True),
    ),
    (
        "no-codes",
        "sform and qform codes are 0",
        either("sform|orientation", told("sform|orientation")),
        header(no_codes),
    ),
    ("metres", "a header in metres", goes_on(predictions(40)), header(metres)),
    *DAMAGED_RECORD,
    ("other-model", "weights of the conventional network", says("another"), {"ckpt_path": "<other>/model.pt"}),
)

RESUME = table("ad_mri/resume", *resumed({"base_network#dense_channels": 32}, rows(lambda given: given[:-1])))

CASES = [*EVALUATE, *INFERENCE, *RESUME]
