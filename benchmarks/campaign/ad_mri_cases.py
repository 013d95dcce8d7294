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

"""AD from MRI: trees, tables and volumes that are wrong or unusual."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from .ad_mri_edits import (
    apple_double,
    beside,
    broken_link,
    file,
    first,
    header,
    metres,
    no_codes,
    participants,
    rows,
    unpacked,
    volume,
)
from .case import Outcome, either, goes_on, says, table, told
from .study_data import AFFINE
from .weights import trained


def listed(count: int) -> Callable[[Outcome], None]:
    """As many images are trained on, in the record of the training."""

    def check(outcome: Outcome) -> None:
        trained(outcome)
        cached = list(outcome.place.out.glob("cache/*.pt"))
        assert len(cached) <= count, f"{len(cached)} images were read, {count} at most are in training and validation"

    return check


def as_in_millimetres(outcome: Outcome) -> None:
    """The images that the network is trained on are those that headers in millimetres give."""
    trained(outcome)
    found, right = (
        {item["subject"]: item["image"] for item in map(_loaded, folder.glob("cache/*.pt"))}
        for folder in (outcome.place.out, outcome.place.shared / outcome.place.bundle / "run")
    )
    assert found.keys() == right.keys(), f"{len(found)} images, {len(right)} from headers in millimetres"
    wrong = [name for name in found if not torch.allclose(found[name], right[name], atol=1e-3)]
    assert not wrong, f"{wrong[:1]} is another image than from headers in millimetres"


def _loaded(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


TRAIN = table(
    "ad_mri/train",
    ("no-folder", "folder does not exist", says("dataset folder .* does not exist"), {"dataset_dir": "<folder>/none"}),
    (
        "file",
        "a volume as dataset_dir",
        says("not a folder|is a file|CSV"),
        {"dataset_dir": "<data>/sub-002x0/anat/sub-002x0_T1w.nii.gz"},
    ),
    (
        "no-participants",
        "no participants.tsv",
        says("no participants.tsv"),
        lambda p: (p.data / "participants.tsv").unlink(),
    ),
    ("empty-table", "participants.tsv of 0 bytes", says("participants.tsv"), participants(lambda content: b"")),
    ("head-alone", "participants.tsv without rows", says("no rows"), rows(lambda given: given[:0])),
    (
        "latin-1",
        "a site in latin-1",
        goes_on(trained),
        participants(lambda c: c.replace(b"002", b"K\xf6ln")),
    ),
    ("commas", "commas in a .tsv", goes_on(trained), participants(lambda content: content.replace(b"\t", b","))),
    ("mark", "UTF-8 with a mark", goes_on(trained), participants(lambda content: b"\xef\xbb\xbf" + content)),
    (
        "windows",
        "line ends of Windows",
        goes_on(trained),
        participants(lambda content: content.replace(b"\n", b"\r\n")),
    ),
    ("no-site", "no column site", says("no column 'site'"), rows(lambda given: given.drop(columns="site"))),
    (
        "no-diagnosis",
        "no column diagnosis",
        says("no column 'diagnosis'"),
        rows(lambda given: given.drop(columns="diagnosis")),
    ),
    ("empty-site", "a site is empty", says("site"), first("site", "")),
    ("na-site", "a site is n/a", says("site"), first("site", "n/a")),
    ("other-diagnosis", "rows with MCI", goes_on(told(r"4 .*MCI|MCI.* 4", trained)), first("diagnosis", "MCI", 4)),
    ("na-diagnosis", "rows with n/a", goes_on(told(r"\b4 .*n/a|n/a.* 4", trained)), first("diagnosis", "n/a", 4)),
    (
        "twice",
        "a participant in two rows",
        goes_on(told("repeat", trained)),
        rows(lambda given: pd.concat([given, given[:1]])),
    ),
    ("one-class", "all are CN", says("label|class|diagnosis"), rows(lambda given: given.assign(diagnosis="CN"))),
    ("one-site", "all of one site", says("site"), rows(lambda given: given.assign(site="002"))),
    ("twelve", "12 subjects", says("subjects|split|few|partition"), rows(lambda given: given[:12])),
    ("role", "a role that is none", says("site_role"), first("site_role", "maybe")),
    (
        "role-case",
        "'Seen' in place of 'seen'",
        either("site_role", trained),
        rows(lambda g: g.replace({"seen": "Seen"})),
    ),
    (
        "spelling",
        "site 'a' and 'A'",
        either("site", told("'A'.*'a'|'a'.*'A'")),
        rows(lambda g: g.replace({"002": "a", "005": "A"})),
    ),
    (
        "no-scans",
        "participants without scans",
        says("no image"),
        lambda p: [shutil.rmtree(s) for s in p.data.glob("sub-*")],
    ),
    ("one-scan-less", "a participant without a scan", goes_on(told("1 of 40|no T1w", trained)), file(os.unlink)),
    (
        "cut",
        "volume cut short",
        says(r"sub-.*(cannot be read|truncated)"),
        file(lambda f: f.write_bytes(f.read_bytes()[:900])),
    ),
    ("empty", "volume of 0 bytes", says("sub-.*cannot be read"), file(lambda f: f.write_bytes(b""))),
    (
        "web-page",
        "a web page as volume",
        says("sub-.*cannot be read"),
        file(lambda f: f.write_bytes(b"<!DOCTYPE html>")),
    ),
    ("nan", "voxels that are NaN", says("sub-.*NaN"), volume(lambda v: np.where(v > 200, np.nan, v))),
    ("constant", "a volume of zeros", says("sub-.*constant"), volume(lambda v: 0 * v)),
    ("series", "a series of volumes", says("sub-.*shape"), volume(lambda v: np.stack([v, v], -1))),
    ("plane", "a plane in place of a volume", says("sub-.*(shape|volume|plane)"), volume(lambda v: v[:, :, 0])),
    ("complex", "complex voxels", says("sub-.*(complex|type)"), volume(lambda v: v.astype(np.complex64))),
    (
        "elsewhere",
        "volumes that lie elsewhere",
        says("sub-.*(reach|outside)"),
        header(lambda i: i.set_sform(AFFINE + 1e4 * np.eye(4, k=3))),
    ),
    (
        "flat",
        "a voxel size of 0",
        says("sub-.*(voxel|affine|singular)"),
        header(lambda i: i.set_sform(np.diag([0.0, 4, 4, 1]), 1)),
    ),
    (
        "no-codes",
        "sform and qform codes are 0",
        either("sform|orientation", told("sform|orientation")),
        header(no_codes),
    ),
    ("metres", "a header in metres", goes_on(as_in_millimetres), header(metres)),
    ("apple-double", "._ files of macOS", goes_on(listed(28)), apple_double),
    ("twice-packed", "a scan as .nii and .nii.gz", goes_on(told(r"\.nii", trained)), unpacked),
    ("broken-link", "a link to nothing", says("sub-.*(link|does not exist|no image)"), broken_link),
    ("mask-beside", "a mask beside the volume", goes_on(listed(28)), beside("sub-002x0_desc-brain_mask.nii.gz")),
    (
        "folder-nii",
        "a folder named as a volume",
        goes_on(told("1 of 40|no T1w", trained)),
        file(lambda f: (f.unlink(), f.mkdir())),
    ),
)

SETTINGS = table(
    "ad_mri/train",
    *(
        (f"{name}={value}", f"{name} {value}", wanted, {name: value})
        for name, value, wanted in [
            ("image_size", 0, says("size")),
            ("image_size", -80, says("size")),
            ("image_size", 8, says("size|small")),
            ("image_size", "big", says("size")),
            ("pixel_size", 0, says("pixel_size|positive")),
            ("seen_sites", "['002','nosuch']", says("nosuch")),
            ("seen_sites", "002", says("got 8: give more subjects")),
            ("seen_sites", "[]", says("seen")),
            ("seen_sites", "[2,5]", says("16 subjects are too few")),
            ("seen_sites", "['002']", says("site|subjects")),
            ("seen_sites", "null", goes_on(trained)),
            ("num_workers", -1, says("num_workers")),
            ("num_workers", "two", says("num_workers")),
            ("patience", -1, says("patience")),
            ("warm_up_epochs", -1, says("warm.up")),
            ("adversary_steps", 0, says("adversary_steps")),
            ("base_network#dropout", 2, says("dropout")),
            ("base_network#chanels", "[4]", says("chanels.*channels")),
            ("z_predictor#max_epoch", 3, says("max_epoch\\b.*max_epochs")),
            ("amp", "maybe", says("amp")),
            ("cache_dir", "/dev/null/cache", says("cache_dir|cannot be")),
            ("ckpt_dir", "/dev/null/run", says("ckpt_dir|cannot be")),
            ("tensorboard_dir", "/dev/null/tb", says("tensorboard_dir|cannot be")),
            ("lambda_adversary", -3, says("lambda_adversary")),
            ("learning_rate", 1e20, says("NaN|diverge|finite")),
        ]
    ),
)

CASES = [*TRAIN, *SETTINGS]
