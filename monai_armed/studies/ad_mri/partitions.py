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
from monai_armed.data.held_out import held_out, study_name
from monai_armed.data.splits import split_by_subject, split_seen_unseen

__all__ = ["ad_mri_partitions"]


def ad_mri_partitions(
    dataset: str | os.PathLike[str],
    simulated_scale: float | None = None,
    simulated_unseen_scale: float | None = None,
    simulation_seed: int = 0,
    split_seed: int = 0,
    seen_sites: Collection[str] | None = None,
    trained: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """
    Read the images of the AD study and divide them (Section 3.3.2 of https://arxiv.org/abs/2202.11783): 70 / 10 / 20 %
    of the subjects of seen sites for training, validation and test, and all images of unseen sites. With a model that
    is trained, seen are its sites, and its test subjects are those that it was not trained on.

    Args:
        dataset: folder of a BIDS tree, or a CSV file; see :py:func:`load_bids_datalist`, :py:func:`load_csv_datalist`.
        simulated_scale: if given, the folder is filled with the simulated study first, this share of its full size.
        simulated_unseen_scale: the same for its unseen sites; by default ``simulated_scale``.
        simulation_seed: seed of the simulated study.
        split_seed: seed of the division.
        seen_sites: names of the seen sites; see :py:func:`split_seen_unseen`.
        trained: what a model was trained on, from :py:func:`monai_armed.bundle.provenance`; it
            counts where it was the same study, and then neither seed nor seen sites are needed.

    Returns:
        ``"train"``, ``"val"``, ``"test"`` and ``"unseen"``, each a MONAI data list; ``"sites"``, the names of the
        seen sites in the order of their cluster index; and ``"study"``, which draw of the simulation this is, or
        ``"data"``.

    Raises:
        ValueError: when ``seen_sites`` are not those of the trained model, or there is nothing that it was not trained
            on.
    """
    if simulated_scale is not None:
        from monai_armed.studies.ad_mri.simulator import simulate_ad_mri  # needs the `simulate` extra

        simulate_ad_mri(dataset, simulated_scale, simulation_seed, unseen_scale=simulated_unseen_scale)
    path = Path(dataset)
    datalist = load_csv_datalist(path) if path.suffix.lower() == ".csv" else load_bids_datalist(path)
    study = study_name(path / "derivatives" / "truth" / "simulation.json")
    if trained is not None and trained["study"] == study:
        return {**held_out(datalist, trained, seen_sites), "sites": trained["sites"], "study": study}
    seen, unseen = split_seen_unseen(datalist, seen_sites)
    train, val, test = split_by_subject(seen, seed=split_seed)
    sites = sorted({item["site"] for item in seen})
    return {"train": train, "val": val, "test": test, "unseen": unseen, "sites": sites, "study": study}
