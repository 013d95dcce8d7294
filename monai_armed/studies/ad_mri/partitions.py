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

"""Partitions of the AD study: the simulated one, or a user's own BIDS tree or CSV."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from monai_armed.data.bids import load_bids_datalist, load_csv_datalist
from monai_armed.data.held_out import held_out
from monai_armed.data.reading import reading_options
from monai_armed.data.sample_marks import KEYS, study_name
from monai_armed.data.splits import split_by_subject, split_seen_unseen
from monai_armed.data.table import check_classes

__all__ = ["ad_mri_partitions", "read_ad_mri"]


def ad_mri_partitions(
    dataset: str | os.PathLike[str],
    simulated_scale: float | None = None,
    simulated_unseen_scale: float | None = None,
    simulation_seed: int = 0,
    split_seed: int = 0,
    seen_sites: Collection[str] | None = None,
    trained: Mapping[str, Any] | None = None,
    reading: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """
    Read the images of the AD study and divide them (Section 3.3.2 of https://arxiv.org/abs/2202.11783): 70 / 10 / 20 %
    of the subjects of seen sites for training, validation and test, and all images of unseen sites. With a model that
    is trained, seen are its sites, and its test subjects are those that it was not trained on, see
    :py:func:`monai_armed.data.held_out.held_out`: of another study than the model's all images are unseen.

    Args:
        dataset: folder of a BIDS tree, or a CSV file; see :py:func:`load_bids_datalist`, :py:func:`load_csv_datalist`.
        simulated_scale: if given, the folder is filled with the simulated study first, this share of its full size.
        simulated_unseen_scale: the same for its unseen sites; by default ``simulated_scale``.
        simulation_seed: seed of the simulated study.
        split_seed: seed of the division.
        seen_sites: names of the seen sites; see :py:func:`split_seen_unseen`. With a model that is trained: those of
            its sites that the data are of, which says that they are of the model's study.
        trained: what a model was trained on, from :py:func:`monai_armed.data.held_out.provenance`.
        reading: ``diagnoses``, ``diagnosis_column``, ``site_column``, ``subject_column`` and ``image_column`` of
            :py:func:`read_ad_mri`, by name.

    Returns:
        ``"train"``, ``"val"``, ``"test"`` and ``"unseen"``, each a MONAI data list; ``"sites"``, the names of the
        seen sites in the order of their cluster index; and ``"study"``, which data these are, see
        :py:func:`monai_armed.data.sample_marks.study_name`.

    Raises:
        ValueError: when ``seen_sites`` are not those of the trained model, or there is nothing that it was not trained
            on.
    """
    if simulated_scale is not None:
        from monai_armed.studies.ad_mri.simulator import simulate_ad_mri  # needs the `simulate` extra

        simulate_ad_mri(dataset, simulated_scale, simulation_seed, unseen_scale=simulated_unseen_scale)
    datalist = read_ad_mri(dataset, **reading_options(reading))
    study = study_name(datalist, marker=Path(dataset) / "derivatives" / "truth" / "simulation.json")
    about = {"study": study, "keys": KEYS}
    if trained is not None:
        return {**held_out(datalist, trained, study, seen=seen_sites), "sites": list(trained["clusters"]), **about}
    seen, unseen = split_seen_unseen(datalist, seen_sites)
    sites = sorted({item["site"] for item in seen})
    train, val, test = split_by_subject(seen, seed=split_seed)
    return {"train": train, "val": val, "test": test, "unseen": unseen, "sites": sites, **about}


def read_ad_mri(
    dataset: str | os.PathLike[str],
    diagnoses: Mapping[str, int] | None = None,
    diagnosis_column: str | None = None,
    site_column: str | None = None,
    subject_column: str | None = None,
    image_column: str | None = None,
) -> list[dict[str, Any]]:
    """
    Data list of a BIDS tree or a CSV file, see :py:func:`load_bids_datalist` and :py:func:`load_csv_datalist`.

    Args:
        dataset: folder of a BIDS tree, or a CSV file.
        diagnoses: class of each diagnosis, 0 or 1, such as ``{"Dementia": 1, "CN": 0}``; by default
            ``{"CN": 0, "AD": 1}``. Rows with another one are left out, and a warning counts them.
        diagnosis_column: column with the diagnosis, by default ``diagnosis`` of participants.tsv, ``label`` of a CSV.
        site_column: column with the site, by default ``site``.
        subject_column: column with the subject, by default ``participant_id`` of participants.tsv, ``subject`` of a
            CSV.
        image_column: column with the file, by default ``image`` of a CSV.

    Raises:
        ValueError: when a class is neither 0 nor 1, or a BIDS tree is given an ``image_column``.
    """
    check_classes(diagnoses)
    names = {
        "diagnosis_column": diagnosis_column,
        "site_column": site_column,
        "subject_column": subject_column,
        "image_column": image_column,
    }
    given = {name: column for name, column in names.items() if column is not None}
    path = Path(dataset)
    if path.is_file() or path.suffix.lower() == ".csv":
        return load_csv_datalist(path, **given, diagnoses=diagnoses)
    if image_column is not None:
        raise ValueError(f"image_column is {image_column!r}, but {path} is no CSV file: BIDS says where images lie.")
    return load_bids_datalist(path, **given, diagnoses=diagnoses)
