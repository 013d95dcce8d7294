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

"""Preprocessing of raw scans, and the commands of the package as such. No case needs a head in its scans."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd

from .ad_mri_edits import apple_double, broken_link, file, header, metres, rows, unpacked, volume
from .case import Check, Outcome, Place, reports, says, table


def only_first(*edits) -> object:
    """An edit that leaves one scan, and further ones."""

    def edit(place: Place) -> None:
        for folder in sorted(place.data.glob("sub-*"))[1:]:
            shutil.rmtree(folder)
        for further in edits:
            further(place)

    return edit


def left_out(reason: str, scans: int = 1) -> Check:
    """All scans are in the quality table, and the first is left out for the reason."""

    def check(outcome: Outcome) -> None:
        quality = pd.read_csv(outcome.place.out / "quality.csv")
        assert len(quality) == scans, f"{len(quality)} scans in quality.csv, {scans} are there"
        first = quality.iloc[0]
        assert first["status"] == "left out", f"its status is {first['status']}"
        assert pd.Series([first["reason"]]).str.contains(reason, case=False).all(), f"its reason is {first['reason']}"

    return check


CASES = table(
    "ad_mri/preprocess",
    ("no-folder", "folder does not exist", says("no scan|does not exist"), {"dataset_dir": "<folder>/none"}),
    ("no-scans", "no scans", says("no scan"), {"dataset_dir": "<folder>"}),
    ("same-folder", "results where the scans are", says("where the raw scans are"), {"output_dir": "<data>"}),
    ("file", "results in a file", says("is a file"), {"output_dir": "/etc/hostname"}),
    ("registration", "a registration that is none", says("registration"), {"registration": "elastic"}),
    ("no-output", "no output folder", says("output_dir"), {"output_dir": None}),
    (
        "processes-0",
        "--processes 0",
        says("processes"),
        {"processes": 0},
        only_first(file(lambda f: f.write_bytes(b""))),
    ),
    (
        "processes--2",
        "--processes -2",
        says("processes"),
        {"processes": -2},
        only_first(file(lambda f: f.write_bytes(b""))),
    ),
    ("processes-x", "--processes x", says("processes"), {"processes": "x"}),
    ("unknown", "an option that is none", says("unrecognized|--force"), {"force": True}),
    ("twice-packed", "a scan as .nii and .nii.gz", reports(r"\.nii", left_out("", 1)), only_first(unpacked)),
    *(
        (name, what, reports("left out|no scan", left_out(reason)), only_first(edit))
        for name, what, reason, edit in [
            ("empty", "a scan of 0 bytes", "cannot be read", file(lambda f: f.write_bytes(b""))),
            ("text", "text as scan", "cannot be read", file(lambda f: f.write_text("scan"))),
            ("nan", "voxels that are NaN", "NaN", volume(lambda v: np.where(v > 200, np.nan, v))),
            ("constant", "a scan of zeros", "constant", volume(lambda v: 0 * v)),
            ("series", "a series of volumes", "shape", volume(lambda v: np.stack([v, v], -1))),
            ("broken-link", "a link to nothing", "link|does not exist", broken_link),
        ]
    ),
    (
        "apple-double",
        "._ files of macOS",
        reports("left out", left_out("", 1)),
        only_first(file(lambda f: f.write_bytes(b"")), apple_double),
    ),
    (
        "metres",
        "a header in metres",
        reports("left out", left_out("unit|metre|voxel size")),
        only_first(header(metres)),
    ),
    (
        "strangers",
        "a scan without a participant",
        reports("no row|participants", left_out("", 1)),
        only_first(rows(lambda g: g[1:])),
    ),
)
