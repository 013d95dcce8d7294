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

"""What is said of all prepared scans together: the quality table, its sheets, and the list of scans to train on."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from monai_armed import __version__
from monai_armed.data.bids import left_out_of_bids, load_bids_datalist
from monai_armed.data.replaced_file import replaced_file, write_csv, write_text
from monai_armed.studies.ad_mri.quality_sheet import plot_quality_sheets
from monai_armed.studies.ad_mri.scan_check import usable

__all__ = ["write_study"]


def write_study(
    source: Path,
    output: Path,
    table: pd.DataFrame,
    brains: Sequence[Path],
    slices: Sequence[Path],
    point: tuple[float, float],
) -> None:
    """
    Write ``quality.csv``, ``quality_1.png`` and so on, ``dataset_description.json``, ``participants.tsv`` and
    ``datalist.csv``, and say what of the raw scans is not in the list.

    Args:
        source: folder of the raw scans.
        output: folder of the prepared ones.
        table: the quality table, a row a scan.
        brains: prepared volume of each scan.
        slices: picture of each scan.
        point: row and column of the point that the pictures show.
    """
    output.mkdir(parents=True, exist_ok=True)
    with replaced_file(output / "quality.csv") as file:
        table.astype({"similarity": float, "brain_volume_ml": float}).round(
            {"similarity": 4, "brain_volume_ml": 1}
        ).to_csv(file, index=False)
    plot_quality_sheets(table, slices, point, output)
    described = {
        "Name": f"{source.name}, skull-stripped and aligned with MNI space",
        "BIDSVersion": "1.9.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "monai_armed", "Version": __version__}],
    }
    write_text(json.dumps(described, indent=2), output / "dataset_description.json")
    _write_datalist(source, output, {str(brain) for brain, status in zip(brains, table["status"]) if usable(status)})


def _write_datalist(source: Path, output: Path, to_train_on: set[str]) -> None:
    datalist, participants = output / "datalist.csv", source / "participants.tsv"
    datalist.unlink(missing_ok=True)
    if not participants.is_file():
        print(f"no data list: {source} has no participants.tsv.")
        return
    shutil.copy(participants, output)
    _tell_unmatched(source, participants)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they were told, of the raw scans
            listed = load_bids_datalist(output)
    except (ValueError, FileNotFoundError) as error:
        print(f"no data list: {error}")
        return
    rows = pd.DataFrame([item for item in listed if item["image"] in to_train_on], columns=list(listed[0]))
    if gone := {item["image"] for item in listed} - to_train_on:
        first = Path(min(gone)).relative_to(output)
        print(f"{len(gone)} volumes are of scans that are gone and not in datalist.csv: delete them (first: {first}).")
    rows["image"] = [Path(image).relative_to(output).as_posix() for image in rows["image"]]
    write_csv(rows, datalist)


def _tell_unmatched(source: Path, participants: Path) -> None:
    try:
        names = pd.read_csv(participants, sep="\t", dtype=str)["participant_id"].dropna().str.strip()
    except (ValueError, KeyError):
        return  # what is wrong with the table, its reader says
    for sentence in left_out_of_bids(source, list(names)):
        print(sentence)
